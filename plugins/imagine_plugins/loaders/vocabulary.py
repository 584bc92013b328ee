"""CLIP's byte-pair vocabulary, read from an installed distribution that carries the file."""

from __future__ import annotations

import gzip
import hashlib
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

# The distributions that ship the file, the declared dependency first. None is ever imported:
# they want torchvision or pkg_resources, and `clip` is the name of other packages too.
SOURCES = ("openai-clip", "open-clip-torch", "clip-anytorch")
FILE = "bpe_simple_vocab_16e6.txt.gz"
SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"

MERGES = 49152 - 256 - 2  # of the file's merges, CLIP uses the first 48,894
START, END = "<|startoftext|>", "<|endoftext|>"

Merge = tuple[str, str]


class VocabularyError(Exception):
    """CLIP's vocabulary is not installed, or is not the file it should be."""


@lru_cache(maxsize=1)
def clip_vocabulary() -> tuple[dict[str, int], list[Merge]]:
    """The 49,408 tokens by their number, and the merges in order of priority."""
    lines = gzip.decompress(_content()).decode("utf-8").split("\n")
    merges = [_merge(line) for line in lines[1 : MERGES + 1]]
    alphabet = _byte_alphabet()
    tokens = [*alphabet, *(char + "</w>" for char in alphabet)]
    tokens += [first + second for first, second in merges]
    tokens += [START, END]
    return {token: number for number, token in enumerate(tokens)}, merges


def _merge(line: str) -> Merge:
    first, second = line.split()
    return first, second


def _byte_alphabet() -> list[str]:
    """One printable character for each byte: itself where printable, else one past U+00FF."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    replaced = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + n) for n in range(replaced)]


def _content() -> bytes:
    paths = [path for source in SOURCES for path in _candidates(source)]
    if not paths:
        raise VocabularyError(
            f"CLIP's vocabulary ({FILE}) is not installed; run: pip install openai-clip==1.0.1"
        )
    for path in paths:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == SHA256:
            return content
    raise VocabularyError(
        f"{paths[0]} is not the vocabulary that CLIP was trained with; "
        "run: pip install --force-reinstall --no-deps openai-clip==1.0.1"
    )


def _candidates(distribution: str) -> list[Path]:
    try:
        found = files(distribution) or ()
    except PackageNotFoundError:
        return []
    paths = (Path(str(path.locate())) for path in found if path.name == FILE)
    return [path for path in paths if path.is_file()]
