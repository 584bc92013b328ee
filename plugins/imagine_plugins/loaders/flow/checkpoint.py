"""A flow model on disk: its family, its configuration and the tensors of its parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from imagine_core.interfaces import ModelInfo
from imagine_plugins.loaders.architectures import Config
from imagine_plugins.loaders.components import FLOATS, Weights
from imagine_plugins.loaders.configs import Read
from imagine_plugins.loaders.flow.conversion import Pieces, pieces_of
from imagine_plugins.loaders.flow.family import Family, Variant
from imagine_plugins.loaders.flow.shifts import Shift
from imagine_plugins.loaders.layout import Shape
from imagine_plugins.loaders.vae_layouts import VaeFile, vae_of


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowCheckpoint:
    """A flow model in one file or in a folder, as headers and configurations describe it.

    Attributes:
        family: Its family.
        variant: Which of the family's models it is.
        config: The configuration of its transformer, as diffusers has it.
        shift: Of its noise.
        transformer: The tensors of its transformer, without a prefix.
        original: Whether these have the names of its authors, not diffusers'.
        texts: The text encoders that it holds, by family. A file's have the names that they have
            alone; a folder's are in the folders that `components` says.
        vae: The VAE that it holds; empty for none.
        components: The folders of its parts inside it, by what they are: "vae", "clip-l", ...;
            empty for a file.
        read: Gives the configurations and tokenizers of its folder.
        metadata: What it says of itself.
    """

    family: Family
    variant: Variant
    config: Config
    shift: Shift
    transformer: Weights
    original: bool
    texts: Mapping[str, Weights] = field(default_factory=dict)
    vae: Weights = field(default_factory=dict)
    components: Mapping[str, str] = field(default_factory=dict)
    read: Read = lambda _name: None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs(self) -> tuple[str, ...]:
        """The parts that it cannot draw without and does not hold: "vae", "clip-l", ..."""
        wanted = (text for text in self.variant.texts if text not in self.variant.spare_texts)
        lacking = [text for text in wanted if text not in self.texts]
        return (*(() if self.vae else ("vae",)), *lacking)

    def pieces(self, wanted: Mapping[str, Shape]) -> Pieces:
        """What each parameter of the transformer is made of; see `pieces_of`.

        Args:
            wanted: The shapes of the parameters and persistent buffers, by diffusers' names.
        """
        stored = {name: each.tensor.shape for name, each in self.transformer.items()}
        return pieces_of(self.family.transformer, stored, wanted, original=self.original)

    def own_vae(self) -> VaeFile:
        """The VAE that it holds; raises `ProblemError` where that fits none of its family."""
        config = self.read("vae/config.json")
        known = config if isinstance(config, dict) else None
        return vae_of(self.vae, config=known, told=[self.family.vae])

    def info(self, path: Path, *, name: str, loader: str) -> ModelInfo:
        """The model at `path` as it is listed."""
        parts = (self.transformer, self.vae, *self.texts.values())
        weights = [stored for part in parts for stored in part.values()]
        kinds: Counter[str] = Counter()
        for stored in weights:
            kinds[stored.tensor.dtype] += prod(stored.tensor.shape)
        return ModelInfo(
            name=name,
            path=path,
            loader=loader,
            family=self.family.name,
            size=sum(file.stat().st_size for file in {stored.path for stored in weights}),
            problem=f"{self.variant.title} is recognised, but cannot draw yet",
            parameters=kinds.total(),
            dtype=FLOATS.get(max(kinds, key=kinds.__getitem__)),
            recommended_size=self.variant.size,
            noise="flow",
            metadata=self.metadata,
            details={"variant": self.variant.title},
        )
