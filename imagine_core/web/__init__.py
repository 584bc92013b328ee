"""The HTTP application that routes of plugins are composed into, and who may call it."""
