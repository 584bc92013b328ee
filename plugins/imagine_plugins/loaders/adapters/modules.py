"""The modules of an architecture that an adapter may change, under every name that files use."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple
from weakref import WeakKeyDictionary

from imagine_core.parts import Layers
from imagine_plugins.loaders.architectures import Architecture
from imagine_plugins.loaders.components import component_slots
from imagine_plugins.loaders.layout import Shape

TEXT = "BASE"
"""The block that the text encoders are, where weights are given per block."""

OLD_TEXT_NAMES = (  # diffusers wrote these for CLIP before it used PEFT
    ("_q_proj", "_to_q"),
    ("_k_proj", "_to_k"),
    ("_v_proj", "_to_v"),
    ("_out_proj", "_to_out"),
)


class Target(NamedTuple):
    """A module of a model.

    Attributes:
        component: "unet", "text_encoder" or "text_encoder_2".
        module: Its path in diffusers' or transformers' names, a text encoder's without the level
            `text_model` that some versions of transformers have.
    """

    component: str
    module: str

    def __str__(self) -> str:
        return f"{self.component}.{self.module}"


@dataclass(frozen=True, slots=True)
class Module:
    """A module that an adapter may change.

    Attributes:
        target: Which it is.
        shape: Of its weight: (out, in), (out, in, height, width) where a kernel is larger than one
            pixel, or (channels,) for a norm.
        block: "IN00" .. "IN11", "M00", "OUT00" .. "OUT11" by the numbers of the original layout;
            `TEXT` in text encoders; None for what is in no block.
    """

    target: Target
    shape: Shape
    block: str | None

    @property
    def kind(self) -> Literal["layer", "norm", "table"]:
        """A linear layer or convolution, a norm, or a table of embeddings."""
        if len(self.shape) == 1:
            return "norm"
        is_table = self.target.module.startswith("embeddings.")
        return "table" if is_table else "layer"


class Modules:
    """The modules of a model: `modules[target]`, or by a file's flattened name."""

    def __init__(self, layers: Layers) -> None:
        self._found: dict[Target, Module] = {}
        self._spellings: dict[str, dict[str, Module]] = {}
        for name, shape in layers.shapes.items():
            self._take(target_of(name), shape, layers.original_names.get(name, ""))

    def __getitem__(self, target: Target) -> Module:
        return self._found[target]

    def __contains__(self, target: object) -> bool:
        return target in self._found

    def __iter__(self) -> Iterator[Module]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    @property
    def components(self) -> list[str]:
        """The components that there are."""
        return list(self._spellings)

    def find(self, component: str | None, flat: str) -> Module | None:
        """The module that a file calls `flat`, its dots replaced by underscores.

        Args:
            component: The component that the file names; None where it names none: then the UNet's
                names come first, and the text encoder's count where there is one alone.
            flat: The module's name there.
        """
        if component is None:
            texts = [name for name in self._spellings if name != "unet"]
            found = self._spellings.get("unet", {}).get(flat)
            return found or (self.find(texts[0], flat) if len(texts) == 1 else None)
        return self._spellings.get(component, {}).get(flat)

    def _take(self, target: Target, shape: Shape, original: str) -> None:
        block = _block(original) if target.component == "unet" else TEXT
        self._found[target] = module = Module(target, shape, block)
        spellings = self._spellings.setdefault(target.component, {})
        for name in _spellings(target.module) | (_spellings(original) if original else set()):
            spellings.setdefault(name, module)


_KNOWN: WeakKeyDictionary[Layers, Modules] = WeakKeyDictionary()


def modules_of(layers: Layers) -> Modules:
    """The modules that layers are; kept as long as these."""
    if layers not in _KNOWN:
        _KNOWN[layers] = Modules(layers)
    return _KNOWN[layers]


def layers_of(plan: Architecture) -> Layers:
    """The layers of the UNet and of the text encoders.

    A component of a layout that only loading can tell has none.
    """
    shapes: dict[str, Shape] = {}
    originals: dict[str, str] = {}
    for component, slots in component_slots(plan).items():
        for slot in () if component == "vae" else slots or ():
            if slot.targets[0].endswith(".weight"):
                (path,) = (target.removesuffix(".weight") for target in slot.targets)
                shapes[f"{component}.{path}"] = slot.shape
                originals[f"{component}.{path}"] = slot.key.removesuffix(".weight")
    return Layers(family=plan.family, shapes=shapes, original_names=originals)


def target_of(name: str) -> Target:
    """The module that `Layers` calls `name`."""
    component, _, module = name.partition(".")
    return Target(component, module)


def without_mask(module: Module) -> Module | None:
    """An inpainting UNet's first convolution as other models have it, without mask and picture."""
    if module.target != ("unet", "conv_in") or module.shape[1] != 9:
        return None
    return replace(module, shape=(module.shape[0], 4, *module.shape[2:]))


def _spellings(path: str) -> set[str]:
    flat = path.removeprefix("text_model.").replace(".", "_")
    spelled = {flat}
    if flat.endswith("_to_out_0"):
        spelled.add(flat.removesuffix("_0"))
    spelled |= {
        flat.removesuffix(end) + old for end, old in OLD_TEXT_NAMES if flat.endswith(f"attn{end}")
    }
    return spelled


def _block(key: str) -> str | None:
    name, _, rest = key.partition(".")
    if name == "middle_block":
        return "M00"
    side = {"input_blocks": "IN", "output_blocks": "OUT"}.get(name)
    return None if side is None else f"{side}{int(rest.partition('.')[0]):02}"
