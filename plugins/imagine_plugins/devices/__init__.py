"""Compute devices: cpu, cuda, mps, rocm."""
