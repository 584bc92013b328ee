#!/bin/sh
# Pillow saves an Exif UserComment of type UNDEFINED, which the standard wants, as BYTE, and piexif,
# which A1111's web UI reads its own JPEG and WebP with, then gives a tuple instead of bytes: the
# infotext of a picture that was saved again with its Exif data is still there, and is not read.
# A reader has to take the comment whatever its type says.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 piexif==1.1.3
"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct
import sys

import piexif
import piexif.helper
from PIL import Image, __version__

COMMENT = 0x9286
INFOTEXT = "a cat\nSteps: 20, Seed: 1"


def seen(data: bytes) -> tuple[int, str]:
    """The comment's type in the file, and what piexif makes of it."""
    start = data.index(b"Exif\0\0") + 6
    order = ">" if data[start : start + 2] == b"MM" else "<"
    entry = data.index(struct.pack(order + "H", COMMENT), start)
    (kind,) = struct.unpack(order + "H", data[entry + 2 : entry + 4])
    return kind, type(piexif.load(data)["Exif"][COMMENT]).__name__


first, second = io.BytesIO(), io.BytesIO()
exif = {"Exif": {COMMENT: piexif.helper.UserComment.dump(INFOTEXT, "unicode")}}
Image.new("RGB", (8, 8)).save(first, "JPEG", exif=piexif.dump(exif))
with Image.open(first) as picture:
    picture.save(second, "JPEG", exif=picture.getexif())

print(f"Pillow {__version__}, piexif {piexif.VERSION}")
for name, buffer in (("as A1111 writes it", first), ("saved again by Pillow", second)):
    kind, given = seen(buffer.getvalue())
    print(f"{name}: type {kind}, piexif gives {given}")
there = INFOTEXT.encode("utf-16-be") in second.getvalue()
print(f"the infotext is still in the file: {there}")
same = (seen(first.getvalue()), seen(second.getvalue())) == ((7, "bytes"), (1, "tuple"))
sys.exit(not (same and there))
PYTHON
