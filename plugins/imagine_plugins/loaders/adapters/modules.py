"""The modules of an architecture that an adapter may change, under every name that files use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from imagine_plugins.loaders.architectures import Architecture
from imagine_plugins.loaders.components import component_slots
from imagine_plugins.loaders.layout import Shape, Slot

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

    def __init__(self, slots: Mapping[str, Sequence[Slot]]) -> None:
        self._found: dict[Target, Module] = {}
        self._spellings: dict[str, dict[str, Module]] = {name: {} for name in slots}
        for component, filled in slots.items():
            for slot in filled:
                self._take(component, slot)

    def __getitem__(self, target: Target) -> Module:
        return self._found[target]

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

    def _take(self, component: str, slot: Slot) -> None:
        if not slot.targets[0].endswith(".weight"):
            return
        (path,) = (name.removesuffix(".weight") for name in slot.targets)
        key = slot.key.removesuffix(".weight")
        target = Target(component, path)
        block = _block(key) if component == "unet" else TEXT
        self._found[target] = module = Module(target, slot.shape, block)
        for name in _spellings(path) | _spellings(key):
            self._spellings[component].setdefault(name, module)


def modules_of(plan: Architecture) -> Modules:
    """The modules of the UNet and of the text encoders.

    A component of a layout that only loading can tell has none.
    """
    slots = component_slots(plan)
    return Modules({name: filled or [] for name, filled in slots.items() if name != "vae"})


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
