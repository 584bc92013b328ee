"""Model formats, and the Stable Diffusion models that they hold."""
