"""How attention leaves a model: the seam that own models call, routes into other models, statistics."""
