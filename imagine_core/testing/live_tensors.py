"""Finds the tensors that are alive: what a plugin keeps, and what it gives back."""

from __future__ import annotations

import gc
from collections.abc import Mapping

import torch


def alive() -> dict[int, torch.Tensor]:
    """Every tensor that there is, by its address, which stays its own as long as this is held."""
    return {id(each): each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)}


def born(before: Mapping[int, torch.Tensor]) -> list[torch.Tensor]:
    """The tensors that there are now and were not before."""
    return [tensor for address, tensor in alive().items() if address not in before]
