"""ICC profiles written byte by byte, after ICC.1:2022, for pictures whose colours are known.

display_p3()      what telephones tag their photographs with
adobe_rgb()       what cameras do that are set to it
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

Point = tuple[float, float]

D50 = (0.9642, 1.0, 0.8249)
D65: Point = (0.3127, 0.3290)
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
BLACK_INK = (16, 0, 0)  # L, a and b; no ink is as black as a display
SRGB_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def display_p3() -> bytes:
    """Display P3: sRGB's curve and white, wider primaries."""
    return rgb_profile(((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), SRGB_CURVE)


def adobe_rgb() -> bytes:
    """Adobe RGB (1998): a gamma of 563/256 and a wider green."""
    return rgb_profile(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), (563 / 256,))


def srgb() -> bytes:
    """sRGB itself, as most pictures are tagged."""
    return rgb_profile(SRGB_PRIMARIES, SRGB_CURVE)


def rgb_profile(
    primaries: Sequence[Point], curve: Sequence[float], *, kind: bytes = b"mntr", padding: int = 0
) -> bytes:
    """A display's profile: x and y of red, green and blue, and its parametric curve."""
    matrix = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([D65[0] / D65[1], 1, (1 - D65[0] - D65[1]) / D65[1]])
    cones = BRADFORD @ np.array(D50) / (BRADFORD @ white)
    adapted = np.linalg.inv(BRADFORD) @ np.diag(cones) @ BRADFORD
    columns = (adapted @ (matrix * np.linalg.solve(matrix, white))).T
    tags = {b"wtpt": _xyz(D50)} | ({b"xtra": bytes(padding)} if padding else {})
    for name, column in zip((b"r", b"g", b"b"), columns, strict=True):
        tags[name + b"XYZ"] = _xyz(column)
        tags[name + b"TRC"] = _curve(curve)
    return _profile(b"RGB ", b"XYZ ", kind, tags)


def grey_profile(curve: Sequence[float]) -> bytes:
    """A profile of a grey picture."""
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"wtpt": _xyz(D50), b"kTRC": _curve(curve)})


def ink_profile(corners: Mapping[tuple[int, ...], tuple[int, int, int]]) -> bytes:
    """A profile of inks: the Lab of each mixture of full inks, a dark grey where not said.

    Mixtures between them are interpolated. `lut8Type`, ICC.1:2022, 10.11, with two grid points.
    """
    ramp = bytes(range(256))
    grid = b""
    for inks in product((0, 1), repeat=4):
        light, a, b = corners.get(inks, BLACK_INK)
        grid += bytes([round(light * 2.55), a + 128, b + 128])
    matrix = struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + grid + ramp * 3
    tags = {b"wtpt": _xyz(D50), b"A2B0": table, b"A2B1": table}
    # Of a printer's profile LittleCMS would want the way back as well, to find its black.
    return _profile(b"CMYK", b"Lab ", b"scnr", tags)


def _profile(space: bytes, connection: bytes, kind: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    """Header (7.2), tag table (7.3) and tags, each of them at a multiple of four bytes."""
    table, data = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    body = struct.pack(">I", len(tags)) + table + data
    header = struct.pack(">I", 128 + len(body)) + bytes(4) + bytes([4, 0, 0, 0])
    header += kind + space + connection + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    header += bytes(68 - len(header)) + _numbers(D50)
    return header.ljust(128, b"\0") + body


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + _numbers(values)


def _curve(parameters: Sequence[float]) -> bytes:
    """`parametricCurveType`, 10.18: a gamma alone, or IEC 61966-2.1's with five parameters."""
    kind = {1: 0, 5: 3}[len(parameters)]
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + _numbers(parameters)


def _numbers(values: Sequence[float]) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))
