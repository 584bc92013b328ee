"""Adapters: files that change a model's weights for a request (LoRA and its kin)."""
