"""The mini data: rendered scenes of which every object, relation and word is known."""
