"""Samplers: the schedulers of diffusers, and methods written from their papers."""
