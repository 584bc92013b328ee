"""Upscalers that need no file."""
