"""The small built-in model: the drawer of its training pictures, its training and its judge."""
