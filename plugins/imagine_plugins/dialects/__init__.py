"""HTTP dialects: each translates between its own JSON and the types of the core."""
