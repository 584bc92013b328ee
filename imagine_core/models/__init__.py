"""Models: which there are, which are in memory, and what fits."""
