"""Words, parses, noun phrases and spatial relations in English descriptions."""
