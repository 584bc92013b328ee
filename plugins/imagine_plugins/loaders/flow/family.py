"""What a family of flow models is: how its files are told, and what they do not say."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from imagine_plugins.loaders.architectures import Config
from imagine_plugins.loaders.flow.shifts import Shift
from imagine_plugins.loaders.layout import Shape
from imagine_plugins.loaders.problems import ProblemError

NUMBERED = re.compile(r"([a-z_]+)\.(0|[1-9]\d{0,3})\.(.+\.(?:weight|bias|scale))", re.ASCII)
"""A tensor of one of several like blocks: their list, its number, and the tensor in it."""


class Shapes:
    """The tensors of a transformer by name, in the layout of its authors or in diffusers'.

    Methods take a name of each layout. They raise `KeyError` for what is not there and `IndexError`
    for axes that a tensor lacks.

    Args:
        shapes: The tensors, without a prefix.
        original: Whether the names are those of its authors.
    """

    def __init__(self, shapes: Mapping[str, Shape], *, original: bool) -> None:
        self._shapes = shapes
        self.original = original
        self._blocks: dict[str, dict[int, set[str]]] = {}
        for name in shapes:
            if match := NUMBERED.fullmatch(name):
                numbers = self._blocks.setdefault(match[1], {})
                numbers.setdefault(int(match[2]), set()).add(match[3])

    def size(self, original: str, diffusers: str = "", *, axis: int = 0) -> int:
        """The size of a tensor along an axis."""
        return self._shapes[self._name(original, diffusers)][axis]

    def has(self, original: str, diffusers: str = "") -> bool:
        """Whether there is such a tensor."""
        return self._name(original, diffusers) in self._shapes

    def count(self, original: str, diffusers: str = "", *, spare: tuple[str, ...] = ()) -> int:
        """How many blocks there are in a list, all of them with the same tensors.

        Raises:
            ProblemError: One is missing, or lacks a tensor that others have.

        Args:
            original: The list's name.
            diffusers: Its name in diffusers.
            spare: Beginnings of the tensors that some blocks are made without.
        """
        listed = self._name(original, diffusers)
        blocks = self._blocks.get(listed, {})
        usual = {name for names in blocks.values() for name in names if not name.startswith(spare)}
        for number in range(len(blocks)):
            lacking = usual - blocks.get(number, set())
            if lacking:
                name = f"{listed}.{number}.{min(lacking)}"
                raise ProblemError(f"tensor {name!r} is missing: the file is damaged")
        return len(blocks)

    def having(self, original: str, diffusers: str, tensor: str) -> tuple[int, ...]:
        """The numbers of the blocks that have a tensor."""
        blocks = self._blocks.get(self._name(original, diffusers), {})
        return tuple(sorted(number for number, names in blocks.items() if tensor in names))

    def _name(self, original: str, diffusers: str) -> str:
        return original if self.original or not diffusers else diffusers


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One model of a family: what a request gets that does not say it, and what it reads.

    Attributes:
        title: What messages call it.
        texts: The families of its text encoders, in the order of a diffusers folder's.
        spare_texts: Those of them that it also draws without.
        steps: Sampling steps.
        guidance: Scale of classifier-free guidance; 1 for none.
        distilled_guidance: The guidance that it reads; None for one that reads none.
        kind: As `ModelInfo.guidance`: "free", "distilled", "none".
        shift: Of its noise.
        tokens: The most tokens of a prompt, those of the text encoder that reads most.
        size: Width and height.
        sampler: A registered sampler.
        fits: Whether it has a configuration.
        named: What the file's metadata or its name must say, where shapes cannot tell; "" for
            nothing.
    """

    title: str
    texts: tuple[str, ...]
    spare_texts: tuple[str, ...] = ()
    steps: int
    guidance: float = 1.0
    distilled_guidance: float | None = None
    kind: Literal["free", "distilled", "none"] = "free"
    shift: Shift
    tokens: int
    size: tuple[int, int] = (1024, 1024)
    sampler: str = "euler"
    fits: Callable[[Config], bool] = lambda _config: True
    named: str = ""

    @property
    def negative(self) -> bool:
        """Whether negative prompts mean anything to it."""
        return self.kind != "none"

    @property
    def defaults(self) -> dict[str, Any]:
        """As `ModelInfo.defaults`."""
        values: dict[str, Any] = {
            "steps": self.steps,
            "guidance_scale": self.guidance,
            "sampler": self.sampler,
        }
        if self.distilled_guidance is not None:
            values["distilled_guidance"] = self.distilled_guidance
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A family of flow models.

    Attributes:
        name: As `ModelInfo.family`.
        title: What messages call it.
        transformer: diffusers' class of its transformer.
        pipelines: diffusers' classes of its folders.
        vae: The family whose VAE it draws with: a key of `vaes.VAES`.
        patch: Latent cells along each side of a token.
        original: Tensors that its transformer has in the layout of its authors.
        diffusers: Those that it has in diffusers'.
        configure: The configuration of its transformer, as diffusers has it, by shapes. Raises
            `ProblemError` for relatives that are not supported, and as `Shapes` does.
        check: Raises `ProblemError` for a configuration that cannot serve, a folder's as well.
        variants: The more particular ones first, and last one that fits all.
        refused: Relatives by a tensor that only they have, each with what it is.
        tell: What of a folder's model_index.json and scheduler_config.json tells the variant, in
            the words of `Variant.named`.
    """

    name: str
    title: str
    transformer: str
    pipelines: tuple[str, ...]
    vae: str
    patch: int = 2
    original: tuple[str, ...]
    diffusers: tuple[str, ...]
    configure: Callable[[Shapes], Config]
    check: Callable[[Config], None] = lambda _config: None
    variants: tuple[Variant, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    tell: Callable[[Mapping[str, Any], Mapping[str, Any]], str] = lambda _index, _scheduler: ""

    def variant(self, config: Config, *told: str) -> Variant:
        """The variant of a configuration.

        Args:
            config: That of the transformer.
            told: What says which it is where shapes do not, the more reliable first: the folder's
                configurations, the metadata, the name. The first that names a variant decides.
        """
        fitting = [variant for variant in self.variants if variant.fits(config)]
        for text in told:
            for variant in fitting:
                if variant.named and re.search(variant.named, text, re.IGNORECASE):
                    return variant
        return next(variant for variant in fitting if not variant.named)
