"""Measures what docs/performance.md claims: `nox -s bench [-- NAME ...]`."""

from __future__ import annotations

import sys

from against_diffusers import against_diffusers
from controls import controls
from crowd import crowd
from loading import loading
from loras import loras
from masks import masks
from memory import memory
from overhead import overhead
from page import page
from patience import patience
from picture import picture
from reading import reading
from start import start
from switching import switching
from tiles import tiles

BENCHMARKS = {
    "start": start,
    "picture": picture,
    "diffusers": against_diffusers,
    "crowd": crowd,
    "controls": controls,
    "loading": loading,
    "loras": loras,
    "masks": masks,
    "memory": memory,
    "overhead": overhead,
    "switching": switching,
    "tiles": tiles,
    "page": page,
    "reading": reading,
    "patience": patience,
}


def main() -> None:
    """Run the benchmarks that are named, or all of them."""
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"\n## {name}\n", flush=True)
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
