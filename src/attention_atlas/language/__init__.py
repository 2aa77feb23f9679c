"""Words, parses, noun phrases and spatial relations of English descriptions."""
