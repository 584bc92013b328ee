"""The HTTP application, composed of the routes of plugins, and its access control."""
