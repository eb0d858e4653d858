"""Graph passes that bring a model towards a runtime, one pass per file."""
