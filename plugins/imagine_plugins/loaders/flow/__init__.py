"""Loads flow-matching transformers: SD3, FLUX, Z-Image, Qwen-Image, Chroma."""
