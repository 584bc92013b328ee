"""Imagine's built-in plugins, registered by entry points exactly as a stranger's are."""
