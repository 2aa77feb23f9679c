"""The HTML report that sets each number of a paper beside ours."""
