"""How a dump runs the examples of each task through a model; one file per task."""
