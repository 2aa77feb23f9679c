"""The mini data: rendered scenes with complete annotation of objects, relations and words."""
