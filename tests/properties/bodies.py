"""Bodies for `POST /generate`, by a seed: valid ones, ones with one thing wrong, and nonsense."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

Kind = Literal["valid", "nearly valid", "nonsense"]
KINDS: tuple[Kind, ...] = ("valid", "nearly valid", "nonsense")
SHARES = (2, 5, 3)
"""Of ten bodies, so many are of each kind."""

HUGE = ["1" + "0" * 400, "-" + "9" * 5000, "1e400", "-1e999", "9" * 19 + "." + "1" * 300]
WORDS = ["red", "ein grüner Baum", "猫", "\U0001f9a9", "a\u0000b", "(a:1.3)", "BREAK", "x" * 200]
TYPES = ["application/json", "text/plain", "application/x-www-form-urlencoded", "", "a;b=\x7f"]


@dataclass(frozen=True, slots=True)
class Sent:
    """A body as it is sent.

    Attributes:
        kind: What it is meant to be.
        data: Its bytes.
        content_type: What it claims to be, which nobody believes.
    """

    kind: Kind
    data: bytes
    content_type: str


class Raw(str):
    """JSON that `json.dumps` would not write: it stands in a body as it is."""

    __slots__ = ()


def generated(count: int, *, seed: int) -> Iterator[Sent]:
    """`count` bodies, the same for the same seed."""
    random = Random(seed)
    make: dict[Kind, Callable[[Random], bytes]] = {
        "valid": lambda random: written(valid(random), random),
        "nearly valid": nearly_valid,
        "nonsense": nonsense,
    }
    for _ in range(count):
        (kind,) = random.choices(KINDS, SHARES)
        yield Sent(kind, make[kind](random), random.choice(TYPES))


# --------------------------------------------------------------------------------------- valid


def valid(random: Random) -> dict[str, Any]:
    """A request that can be served, small enough to be served often."""
    body: dict[str, Any] = {"prompt": random.choice(WORDS), "sampler": "test euler"}
    body |= {"width": 64, "height": 64, "steps": 1}
    for name in random.sample(list(CHOICES), random.choice([0, 1, 2, 3, 6])):
        body[name] = CHOICES[name](random)
    if body.get("hires"):
        body.pop("img", None)
    if "img" not in body:
        body = {name: value for name, value in body.items() if name not in ("mask", "extend")}
    return body


def picture(mode: str, form: str) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, (5, 3)).save(file, form)
    return base64.b64encode(file.getvalue()).decode()


FORMS = (("RGB", "PNG"), ("RGBA", "PNG"), ("L", "JPEG"), ("P", "GIF"))
PICTURES = [picture(mode, form) for mode, form in FORMS]
CHOICES: dict[str, Callable[[Random], Any]] = {
    "model": lambda random: random.choice(["tiny", "TINY", None]),
    "width": lambda random: random.choice([64, 64, 72, 128]),
    "height": lambda random: random.choice([64, 72]),
    "steps": lambda random: random.choice([1, 2, 3]),
    "guidance": lambda random: random.choice([0, 1, 1.0, 7.5, 1000, -0.0, 1e-300, None]),
    "sampler": lambda random: random.choice(["test euler", "Test Euler", "EULER", "ddim", None]),
    "schedule": lambda random: "default",
    "seed": lambda random: random.choice([0, -1, "-1", None, 2**64 - 1, "18446744073709551615"]),
    "neg": lambda random: random.choice(["", *WORDS]),
    "img": lambda random: random.choice(["", "data:image/png;base64,"]) + random.choice(PICTURES),
    "strength": lambda random: random.choice([0, 0.5, 1, 1.0]),
    "clip": lambda random: random.choice([1, 2, 12]),
    "stream": lambda random: random.choice([0, 1, 2, 10**60, False, None]),
    "preview": lambda random: random.choice(["fast", "vae"]),
    "hires": lambda random: random.choice([1, 1.5, 2, None]),
    "keep_size": lambda random: random.choice([True, False]),
    "hires_upscaler": lambda random: random.choice(["lanczos", "Nearest"]),
    "hires_steps": lambda random: random.choice([None, 1, 2]),
    "hires_strength": lambda random: random.choice([0, 0.5, 1]),
    "hires_sampler": lambda random: random.choice([None, "ddim", "Euler Karras"]),
    "subseed": lambda random: random.choice([None, -1, "7", 2**64 - 1]),
    "subseed_strength": lambda random: random.choice([0, 0.5, 1]),
    "mask": lambda random: random.choice(PICTURES),
    "mask_blur": lambda random: random.choice([0, 0.5, 256]),
    "mask_fill": lambda random: random.choice(["original", "noise", "blank", "average"]),
    "mask_invert": lambda random: random.choice([True, False]),
    "mask_padding": lambda random: random.choice([None, 0, 1000]),
    "extend": lambda random: [random.choice([0, 8, 16]) for _ in range(4)],
    "controls": lambda random: [],
    "tiling": lambda random: random.choice([True, False, "x", "y"]),
    "vae_tiling": lambda random: random.choice([True, False]),
    "n": lambda random: random.choice([1, 2]),
    "deterministic": lambda random: random.choice([True, False]),
    "progress": lambda random: random.choice([True, False]),
    "on_disconnect": lambda random: random.choice(["cancel", "finish", None]),
    "enhance": lambda random: random.choice([False, None]),
    "original_prompt": lambda random: random.choice([None, "what I meant"]),
    "a key of tomorrow": lambda random: anything(random, depth=3),
}


def written(body: dict[str, Any], random: Random) -> bytes:
    """`body` as JSON in one of the ways to write it."""
    if random.random() < 0.1:
        return b"\xef\xbb\xbf" + text(body).encode()
    if random.random() < 0.2:
        return (" \n\t" + text(body, indent=2) + "\n").encode()
    return text(body, ascii=random.random() < 0.5).encode()


def text(value: Any, *, ascii: bool = True, indent: int | None = None) -> str:  # noqa: A002
    """`value` as JSON, in which `Raw` stands as it is."""
    raw: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, Raw):
            raw.append(str(value))
            return f"@raw{len(raw) - 1}@"
        if isinstance(value, dict):
            return {key: marked(each) for key, each in value.items()}
        return [marked(each) for each in value] if isinstance(value, list) else value

    done = json.dumps(marked(value), ensure_ascii=ascii, indent=indent)
    for number, each in enumerate(raw):
        done = done.replace(f'"@raw{number}@"', each)
    return done


# -------------------------------------------------------------------------------- nearly valid


def nearly_valid(random: Random) -> bytes:
    """A request with one thing wrong."""
    body = valid(random)
    whole = text(body)
    way = random.randrange(10)
    if way == 0:
        return whole[: random.randrange(len(whole))].encode()
    if way == 1:
        return (whole[:-1] + f', "prompt": {json.dumps(random.choice(WORDS))}' + "}").encode()
    if way == 2:
        return (whole + random.choice(["}", "x", whole, ",", "\x00"])).encode()
    if way == 3:
        return whole.encode(random.choice(["utf-16", "utf-32"]))
    if way == 4:
        del body["prompt"]
        return text(body).encode()
    name = random.choice(list(WRONG))
    body[name] = random.choice(WRONG[name])
    return text(body).encode()


NUMBERS = [True, "1", [], {}, Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), *map(Raw, HUGE)]
NO_TEXT = [1, True, [], {}, ["a"], Raw('"\\ud800"'), Raw("NaN"), Raw('"half \\udfff of a pair"')]
WRONG: dict[str, list[Any]] = {
    "prompt": [*NO_TEXT, None, "", " \n", "x" * 20_001],
    "model": [*NO_TEXT, "", "../../etc/passwd", "tiny.fake", "\x00"],
    "width": [*NUMBERS, 0, -64, 63, 65, 100, 56, 512.0, 64.5, 2**31, 4096 * 1024],
    "height": [*NUMBERS, 0, -8, 1, 68, 1e3, 2**63],
    "steps": [*NUMBERS, 0, -1, 1001, 1.0, 2**64],
    "guidance": [*NUMBERS, -0.1, 1000.5, 1e308],
    "sampler": [*NO_TEXT, "", " ", "eulr", "x" * 10_000],
    "schedule": [*NO_TEXT, None, "", "nobody's"],
    "seed": [True, 1.0, -2, 2**64, "-2", "1.0", "", "\uff11", str(2**64), [], *map(Raw, HUGE)],
    "neg": [*NO_TEXT, None, "y" * 20_001],
    "img": [1, True, [], "", "?", "AAAA", "data:image/png;base64,", PICTURES[0][:40], "\ud800"],
    "strength": [*NUMBERS, None, -0.01, 1.01, 2],
    "clip": [*NUMBERS, None, 0, -1, 1.0, 13, 10**50],
    "stream": [*NUMBERS[1:], -1, True, 1.0],
    "preview": [*NO_TEXT, None, "", "slow", "FAST"],
    "hires": [*NUMBERS, 0, 0.99, -2, 8.01, 1e9],
    "n": [*NUMBERS, None, 0, -1, 17, 1.0],
    "deterministic": [None, 0, 1, "true", [], Raw("NaN")],
    "progress": [None, 0, 1, "yes", {}],
    "on_disconnect": ["", "stay", True, 0, [], {}, Raw("1e999")],
    "enhance": ["", " ", "nobody", 1, [], {}, Raw("NaN"), Raw('"\\udc00"')],
    "original_prompt": [*NO_TEXT, "z" * 20_001],
}

# ------------------------------------------------------------------------------------ nonsense


def nonsense(random: Random) -> bytes:
    """Anything."""
    return random.choice([noise, deep, wide, other, mixed, cut, named])(random)


def noise(random: Random) -> bytes:
    return random.randbytes(random.choice([0, 1, 7, 100, 5000]))


def deep(random: Random) -> bytes:
    depth = random.choice([10, 900, 1100, 20_000, 90_000])
    opened, closed = random.choice([("[", "]"), ('{"a":', "}"), ('{"prompt":[', "]}")])
    inside = random.choice(["", "1", "null"]) if opened != '{"a":' else "1"
    ending = closed * depth if random.random() < 0.7 else ""
    return (opened * depth + inside + ending).encode()


def wide(random: Random) -> bytes:
    count = random.choice([100, 2000, 30_000])
    if random.random() < 0.5:
        return b"[" + b",".join([b"0"] * count) + b"]"
    return json.dumps({"prompt": "red", **{f"k{n}": n for n in range(count)}, "n": 0}).encode()


def other(random: Random) -> bytes:
    return text(anything(random, depth=4), ascii=random.random() < 0.5).encode(errors="replace")


def mixed(random: Random) -> bytes:
    """The right keys, and anything under them."""
    names = random.sample(list(WRONG), random.randrange(1, len(WRONG)))
    return text({name: anything(random, depth=2) for name in names}).encode(errors="replace")


def cut(random: Random) -> bytes:
    """A valid body with some bytes that were changed on the way."""
    data = bytearray(written(valid(random), random))
    for _ in range(random.randrange(1, 6)):
        data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data)


def named(random: Random) -> bytes:
    """Not JSON, but what some client might send."""
    return random.choice(
        [
            b"prompt=red&width=64",
            b"<prompt>red</prompt>",
            b"--x\r\nContent-Disposition: form-data; name=prompt\r\n\r\nred\r\n--x--\r\n",
            b"null",
            b'"prompt"',
            b"NaN",
            b"\xff\xfe",
            b"\x1f\x8b\x08\x00",
            b"{'prompt': 'red'}",
            b'{"prompt": "red",}',
            b'{"prompt": "red" /* red */}',
        ]
    )


def anything(random: Random, *, depth: int) -> Any:
    """A JSON value."""
    leaves = [None, True, False, 0, -1, 1.5, 2**70, "", *WORDS, *NO_TEXT[5:], *map(Raw, HUGE)]
    way = random.randrange(4) if depth else 0
    if way == 1:
        return [anything(random, depth=depth - 1) for _ in range(random.randrange(4))]
    if way == 2:
        names = random.sample([*WRONG, "", "a", "__proto__", "é"], random.randrange(4))
        return {name: anything(random, depth=depth - 1) for name in names}
    return random.choice(leaves)
