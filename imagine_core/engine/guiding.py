"""What happens between the predictions of a model and a sampler: guidance, and masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from imagine_core.interfaces import Conditioning, Evaluation
    from imagine_core.noise import NoiseModel

UNREAD_SHOWN = 16
"""The most unknown words that a warning lists."""


@dataclass(frozen=True, slots=True)
class Guidance:
    """The conditioning of a prediction; without `negative` it costs one row, not two."""

    positive: Conditioning
    negative: Conditioning | None
    scale: float

    @property
    def warnings(self) -> list[str]:
        """Notes on where the encoding of the prompts differs from their text."""
        notes = [f"prompt: {note}" for note in self.positive.warnings]
        unread = {word.casefold(): word for word in self.positive.unread}  # a negative one's: meant
        if words := list(unread.values()):
            named = ", ".join(words[:UNREAD_SHOWN]) + (", ..." if words[UNREAD_SHOWN:] else "")
            notes.append(f"prompt: the model does not know, and leaves out: {named}")
        if self.negative is not None:
            notes += [f"negative prompt: {note}" for note in self.negative.warnings]
        return notes

    @property
    def rows(self) -> list[Conditioning]:
        """The conditioning of each row that an evaluation takes, unconditional first."""
        return [self.positive] if self.negative is None else [self.negative, self.positive]

    def with_extras(self, extras: Mapping[str, torch.Tensor]) -> Guidance:
        """The same with other inputs of the model in every row."""
        negative = self.negative
        return replace(
            self,
            positive=_with(self.positive, extras),
            negative=None if negative is None else _with(negative, extras),
        )

    def combine(self, predictions: torch.Tensor) -> torch.Tensor:
        """The guided prediction from those of `rows`: Ho & Salimans 2022, equation 6."""
        if self.negative is None:
            return predictions
        unconditional, conditional = predictions.chunk(2)
        return unconditional + self.scale * (conditional - unconditional)


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The part of a picture that a mask keeps.

    A sampler of any kind ends there at the picture, and the repainted cells see the noised picture
    around them on the way (RePaint, Lugmayr et al. 2022, without its resampling; A1111 blends so).

    Attributes:
        cells: Booleans, [1, 1, height, width].
        init: The latent of the picture, [1, channels, height, width].
        noise: What the model's predictions mean.
    """

    cells: torch.Tensor
    init: torch.Tensor
    noise: NoiseModel

    def steer(self, evaluation: Evaluation, prediction: torch.Tensor) -> torch.Tensor:
        """A guided prediction that leads to the picture in these cells."""
        import torch

        latent, timestep = evaluation.latent, float(evaluation.timestep)
        return torch.where(
            self.cells, self.noise.prediction(latent, timestep, self.init), prediction
        )

    def finish(self, latent: torch.Tensor) -> torch.Tensor:
        """A finished latent with the picture in these cells; some samplers leave noise in it."""
        import torch

        return torch.where(self.cells, self.init, latent)


def _with(conditioning: Conditioning, extras: Mapping[str, torch.Tensor]) -> Conditioning:
    return replace(conditioning, extras={**conditioning.extras, **extras})
