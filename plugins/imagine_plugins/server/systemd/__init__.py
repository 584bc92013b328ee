"""Imagine as a service of systemd."""
