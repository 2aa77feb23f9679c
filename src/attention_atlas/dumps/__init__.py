"""How the examples of each task are run through a model for a dump; one file per task."""
