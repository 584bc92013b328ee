"""ControlNets and T2I-Adapters in single rows of a forward that others share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch

from imagine_core.errors import FieldError, RequestError
from imagine_plugins.loaders.control_fitting import misfit
from imagine_plugins.loaders.control_networks import LoadedControl
from imagine_plugins.loaders.seamless import acting

if TYPE_CHECKING:
    from imagine_core.parts import AppliedControl, Parts

SOFTER = 0.825
"""By this factor each residual is weaker than the next deeper one, where the prompt or the
ControlNet is more important: the guess mode of Zhang et al. 2023, as A1111's extension has it."""

DEEPEST = 12
"""The place of SD1's deepest residual. SDXL's ten have the factors of their places as well."""

A1111_COUNTS = (10, 13)
SOFTER_FEATURES = (0.25, 0.62, 0.825, 1.0)
"""The same for the features of a T2I-Adapter."""


class Row(NamedTuple):
    """A row of a forward in which a ControlNet acts, and how."""

    place: int
    control: AppliedControl


class Span(NamedTuple):
    """Adjacent rows in which a ControlNet acts in the same way.

    Attributes:
        first, last: The rows, the latter excluded.
        begin: The place of the first one among the rows that the ControlNet ran for.
        weight, mode: How it acts.
    """

    first: int
    last: int
    begin: int
    weight: float
    mode: str

    @property
    def rows(self) -> slice:
        """The rows of the forward."""
        return slice(self.first, self.last)

    @property
    def own(self) -> slice:
        """The same among the rows that the ControlNet ran for."""
        return slice(self.begin, self.begin + self.last - self.first)


Read = dict[tuple[tuple[int, int], str], tuple[torch.Tensor, ...]]
"""What a ControlNet makes of a hint, by the size of the latent and the axes that wrap around."""


class Controls:
    """What ControlNets add to the UNet of a model.

    Each runs once in a forward, for those rows alone that have it. What it makes of a hint is kept
    as long as the request.

    Args:
        unet: A UNet2DConditionModel.
        downsampling: Pixels per latent cell along each side.
    """

    def __init__(self, unet: Any, downsampling: int) -> None:
        self._unet = unet
        self._downsampling = downsampling
        self._read: WeakKeyDictionary[AppliedControl, Read] = WeakKeyDictionary()

    def fit(self, parts: Parts) -> None:
        """Raise `RequestError` for ControlNets that were not made for this network."""
        problems = [
            FieldError("controls", f"{control.use.name!r} {problem}")
            for control in parts.controls
            if (problem := misfit(control.net, self._unet.config, self._downsampling)) is not None
        ]
        if problems:
            raise RequestError(problems)

    def residuals(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        added: Mapping[str, torch.Tensor],
        parts: Sequence[Parts | None],
    ) -> dict[str, Any]:
        """Further arguments of the UNet's forward; none where no ControlNet acts.

        Args:
            latents: [rows, channels, height, width], without the inputs of inpainting models.
            timesteps: [rows].
            context: [rows, tokens, width].
            added: Further inputs, [rows, ...].
            parts: For each row.
        """
        nets, features = Sum(len(latents)), Sum(len(latents))
        for net, rows in _by_net(parts).items():
            spans = list(_spans(rows))
            hints = [self._hint(row.control, parts[row.place], latents) for row in rows]
            read = [torch.cat(each) for each in zip(*hints, strict=True)]
            if net.is_adapter:
                scales = SOFTER_FEATURES[-len(read) :]
                features.add([each.to(latents.dtype) for each in read], spans, scales)
                continue

            def of_rows(value: torch.Tensor, spans: Sequence[Span] = spans) -> torch.Tensor:
                return torch.cat([value[span.rows] for span in spans])

            dtype = net.network.dtype
            with acting(net.network, [_seamless(parts[row.place]) for row in rows]):
                down, middle = net.network(
                    of_rows(latents).to(dtype),
                    of_rows(timesteps),
                    encoder_hidden_states=of_rows(context).to(dtype),
                    controlnet_cond=read[0],
                    added_cond_kwargs={name: of_rows(value) for name, value in added.items()},
                    return_dict=False,
                )
            made = [each.to(latents.dtype) for each in (*down, middle)]
            nets.add(made, spans, softer(len(made)))
        found: dict[str, Any] = {}
        if nets.tensors:
            *outer, deepest = nets.tensors
            found["down_block_additional_residuals"] = tuple(outer)
            found["mid_block_additional_residual"] = deepest
        if features.tensors:
            found["down_intrablock_additional_residuals"] = features.tensors
        return found

    def _hint(
        self, control: AppliedControl, parts: Parts | None, latents: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """What a ControlNet makes of its hint, at the size of a pass."""
        assert isinstance(control.net, LoadedControl)
        height, width = latents.shape[-2:]
        kept, key = self._read.setdefault(control, {}), ((width, height), _seamless(parts))
        if key not in kept:
            size, seamless = key
            kept[key] = control.net.read(
                control.hint, size, downsampling=self._downsampling, seamless=seamless
            )
        return kept[key]


class Sum:
    """Residuals of all rows of a forward, added up from those of some; zeros where there are none.

    Args:
        rows: How many there are.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.tensors: list[torch.Tensor] = []

    def add(
        self, made: Sequence[torch.Tensor], spans: Sequence[Span], softer: Sequence[float]
    ) -> None:
        """Add residuals of the rows of `spans`, each times its weight; it takes them over.

        Args:
            made: For each depth, [rows of `spans`, channels, height, width], or one value for each
                channel.
            spans: Where they belong.
            softer: For each depth, a factor of all modes but "balanced".
        """
        if not self.tensors and len(spans) == 1 and spans[0].rows == slice(0, self._rows):
            (span,) = spans
            self.tensors = [
                residual if scale == 1.0 else residual * scale
                for residual, scale in zip(made, _scales(span, softer), strict=True)
            ]
            return
        if not self.tensors:
            self.tensors = [each.new_zeros(self._rows, *each.shape[1:]) for each in made]
        for depth, residual in enumerate(made):
            whole = self.tensors[depth]
            if whole.shape[2:] != residual.shape[2:] and whole.shape[2:].numel() == 1:
                whole = whole.expand(-1, -1, *residual.shape[2:]).clone()
                self.tensors[depth] = whole
            for span in spans:
                scale = _scales(span, softer)[depth]
                whole[span.rows].add_(residual[span.own], alpha=scale)


def softer(count: int) -> list[float]:
    """The factors of a ControlNet's residuals where the prompt or the ControlNet is important."""
    deepest = DEEPEST if count in A1111_COUNTS else count - 1
    return [SOFTER ** (deepest - depth) for depth in range(count)]


def _scales(span: Span, softer: Sequence[float]) -> list[float]:
    return [span.weight * (1.0 if span.mode == "balanced" else factor) for factor in softer]


def _by_net(parts: Sequence[Parts | None]) -> dict[LoadedControl, list[Row]]:
    """The rows of each ControlNet; one that is there twice in a row has it twice, apart."""
    found: dict[LoadedControl, dict[int, list[Row]]] = {}
    for place, each in enumerate(parts):
        times: dict[object, int] = {}
        for control in () if each is None else each.controls:
            if control.use.weight and isinstance(control.net, LoadedControl):
                time = times[control.net] = times.get(control.net, -1) + 1
                found.setdefault(control.net, {}).setdefault(time, []).append(Row(place, control))
    return {net: [row for rows in times.values() for row in rows] for net, times in found.items()}


def _spans(rows: Sequence[Row]) -> Iterator[Span]:
    span: Span | None = None
    for begin, (place, control) in enumerate(rows):
        acts = (control.use.weight, control.use.mode)
        if span is not None and (span.last, span.weight, span.mode) == (place, *acts):
            span = span._replace(last=place + 1)
            continue
        if span is not None:
            yield span
        span = Span(place, place + 1, begin, *acts)
    if span is not None:
        yield span


def _seamless(parts: Parts | None) -> str:
    return "" if parts is None else parts.seamless
