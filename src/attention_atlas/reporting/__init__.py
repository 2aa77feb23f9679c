"""The HTML report that compares the papers' numbers with ours."""
