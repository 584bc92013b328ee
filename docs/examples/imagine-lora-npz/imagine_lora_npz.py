"""LoRAs in NumPy's `.npz` files: arrays `LAYER.down`, `LAYER.up`, `LAYER.alpha`, and `about`."""

import json
import math
import zipfile
from dataclasses import dataclass, replace

from imagine_core import ModelInfo, hookimpl
from imagine_core.errors import UnusableModel
from imagine_core.parts import Change, FittedLora, LowRank

DAMAGED = "the file is damaged or cut off; copy it again"
BROKEN = (EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile)


class Unfit(Exception):
    """Why a file or a layer of it cannot be used."""


def shape_of(archive, member):
    """The shape of an array by its header, which must be true: memory is reckoned by it."""
    import numpy as np  # as a whole: part of it fails while another thread imports the rest

    if member.compress_type != zipfile.ZIP_STORED:
        raise Unfit("its arrays are compressed; write them with numpy.savez")
    with archive.open(member) as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        size = file.tell() + math.prod(shape) * dtype.itemsize
    if dtype.str not in ("<f2", "<f4", "<f8") and member.filename != "about.npy":
        raise Unfit(f"it has an array of {dtype}; write float16, float32 or float64")
    if size != member.file_size:
        raise Unfit(DAMAGED)
    return shape


def described(path):
    """What a file says of itself, and the ranks of its layers; None without an `about`."""
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        if "about.npy" not in archive.namelist():
            return None
        shapes = {each.filename: shape_of(archive, each) for each in archive.infolist()}
        with archive.open("about.npy") as file:
            said = json.loads(str(np.lib.format.read_array(file, allow_pickle=False)))
    ranks = [shape[0] for name, shape in shapes.items() if name.endswith(".down.npy") and shape]
    triggers = [str(word) for word in said.get("triggers", [])]
    details = {"triggers": triggers, "modules": len(ranks), "ranks": sorted(set(ranks))}
    return {"family": said["family"], "fits": (said["family"],), "details": details}


@dataclass(eq=False)
class Product:
    """The change of a weight: `up @ down`, scaled."""

    down: object
    up: object
    scale: float

    def low_rank(self, dtype):
        """Both factors."""
        return LowRank(self.down.to(dtype), self.up.to(dtype) * self.scale)

    def dense(self, dtype):
        """Their product in the shape of the weight."""
        down, up = self.low_rank(dtype)
        return (up @ down.flatten(1)).view(len(up), *down.shape[1:])

    def to(self, device):
        """The same on a device."""
        return replace(self, down=self.down.to(device), up=self.up.to(device))


def product(shape, down, up, alpha):
    """The change of a layer whose weight has a shape."""
    if shape is None:
        raise Unfit("this model has no such layer")
    if down is None or up is None or not down.dim() == len(shape) >= 2 or not len(down):
        raise Unfit("it has no `down` and `up` of a linear layer or a convolution")
    if (len(up), *down.shape[1:]) != shape or up.shape[1:] != down.shape[:1]:
        raise Unfit("its shape is another in this model")
    scale = 1.0 if alpha is None else float(alpha.sum()) / len(down)
    if not (down.isfinite().all() and up.isfinite().all() and math.isfinite(scale)):
        raise Unfit("its values are not finite")
    return Product(down, up, scale)


class NpzLora:
    """A LoRA in memory: its tensors by name."""

    hash = None  # other programs know none for such files

    def __init__(self, name, tensors):
        self.name, self.tensors, self.last = name, tensors, (None, None)

    def fit(self, layers):
        """What it changes in a model. Each forward asks, so the answer is kept."""
        if self.last[0] is not layers:
            self.last = layers, self.fit_once(layers)
        return self.last[1]

    def fit_once(self, layers):
        """Take the layers that fit, and say which do not."""
        changes, warnings = {}, []
        for layer in dict.fromkeys(name.rpartition(".")[0] for name in self.tensors):
            parts = (self.tensors.get(f"{layer}.{part}") for part in ("down", "up", "alpha"))
            try:
                changes[layer] = Change(updates=(product(layers.shapes.get(layer), *parts),))
            except Unfit as error:
                warnings.append(f"{layer} left out: {error}")
        if not changes:
            why = "; ".join(["nothing in it fits", *warnings[:3]])
            raise UnusableModel(self.name, why, kind="LoRA")
        return FittedLora(changes=changes, warnings=tuple(warnings))

    def close(self):
        """Drop the tensors."""
        self.tensors, self.last = {}, (None, None)


class NpzLoader:
    """Recognises and loads such files."""

    name = "lora-npz"

    def recognise(self, path):
        """What a file is, by the directory of the zip file and the headers of the arrays."""
        if path.suffix != ".npz" or not path.is_file():
            return None
        try:
            said = described(path)
        except Unfit as error:
            said = {"family": "unknown", "problem": str(error)}
        except BROKEN:
            said = {"family": "unknown", "problem": DAMAGED}
        where = {"name": path.stem, "path": path, "size": path.stat().st_size}
        return said and ModelInfo(loader=self.name, kind="lora", **where, **said)

    def load(self, info, *, device, full_precision, progress=id):  # noqa: ARG002 - of the interface
        """Read the arrays; what a model makes of them goes to its device."""
        import numpy as np
        import torch

        try:
            with np.load(info.path, allow_pickle=False) as arrays:
                names = [name for name in arrays.files if name != "about"]
                tensors = {name: torch.from_numpy(arrays[name]) for name in names}
        except BROKEN as error:
            raise UnusableModel(info.name, DAMAGED, kind="LoRA") from error
        return NpzLora(info.name, tensors)


@hookimpl
def register_model_loaders(register):
    """Register the loader."""
    register(NpzLoader())
