"""Imagine's built-in plugins, registered by entry points as those of other packages are."""
