"""Prompt enhancers: a language model on Ollama, and a table that needs none."""
