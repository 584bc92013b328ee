"""ControlNets and T2I-Adapters in single rows of a forward that others share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch

from imagine_core.errors import FieldError, RequestError
from imagine_core.pictures.images import resized
from imagine_plugins.loaders.controlnet import LoadedControl
from imagine_plugins.loaders.seamless import acting

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.parts import AppliedControl, Parts

SOFTER = 0.825
"""By this factor each residual is weaker than the next deeper one, where the prompt or the
ControlNet is more important: the guess mode of Zhang et al. 2023, as A1111's extension has it."""

DEEPEST = 12
"""The place of SD1's deepest residual; SDXL's have the factors of their own places, up to 9."""

SOFTER_FEATURES = (0.25, 0.62, 0.825, 1.0)
"""The same for the four features of a T2I-Adapter."""


class Row(NamedTuple):
    """A row of a forward in which a ControlNet acts, and how."""

    place: int
    control: AppliedControl


class Controls:
    """What ControlNets add to the UNet of a model.

    Each runs once in a forward, for those rows alone that have it.

    Args:
        unet: A UNet2DConditionModel.
        downsampling: Pixels per latent cell along each side.
    """

    def __init__(self, unet: Any, downsampling: int) -> None:
        self._unet = unet
        self._downsampling = downsampling
        self._hints: WeakKeyDictionary[AppliedControl, dict[tuple[int, int], torch.Tensor]] = (
            WeakKeyDictionary()
        )

    def fit(self, parts: Parts) -> None:
        """Raise `RequestError` for a ControlNet that was not made for this network."""
        for control in parts.controls:
            problem = self._misfit(control.net)
            if problem is not None:
                message = f"{control.use.name!r} does not fit this model: {problem}"
                raise RequestError([FieldError("controls", message)])

    def residuals(
        self,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        added: Mapping[str, torch.Tensor],
        parts: Sequence[Parts | None],
    ) -> dict[str, Any]:
        """Further arguments of the UNet's forward.

        Args:
            latents: [rows, channels, height, width], without the inputs of inpainting models.
            timesteps: [rows].
            context: [rows, tokens, width].
            added: Further inputs, [rows, ...].
            parts: For each row.
        """
        rows: dict[LoadedControl, list[Row]] = {}
        for place, each in enumerate(parts):
            for control in () if each is None else each.controls:
                if isinstance(control.net, LoadedControl):
                    rows.setdefault(control.net, []).append(Row(place, control))
        if not rows:
            return {}
        size = (latents.shape[3] * self._downsampling, latents.shape[2] * self._downsampling)
        nets: list[torch.Tensor] = []
        features: list[torch.Tensor] = []
        for net, used in rows.items():
            places = torch.tensor([row.place for row in used], device=latents.device)
            hints = torch.cat([self._hint(net, row.control, size) for row in used])
            seamless = [_seamless(parts[row.place]) for row in used]
            with acting(net.network, seamless):
                if net.is_adapter:
                    made = net.network(hints)
                else:
                    down, middle = net.network(
                        latents[places].to(net.network.dtype),
                        timesteps[places],
                        encoder_hidden_states=context[places].to(net.network.dtype),
                        controlnet_cond=hints,
                        added_cond_kwargs={name: value[places] for name, value in added.items()},
                        return_dict=False,
                    )
                    made = [*down, middle]
            weighted = _weighted(made, used, net.is_adapter)
            _add(features if net.is_adapter else nets, weighted, places, latents)
        found: dict[str, Any] = {}
        if nets:
            *down, middle = nets
            found["down_block_additional_residuals"] = tuple(down)
            found["mid_block_additional_residual"] = middle
        if features:
            found["down_intrablock_additional_residuals"] = features
        return found

    def _hint(
        self, net: LoadedControl, control: AppliedControl, size: tuple[int, int]
    ) -> torch.Tensor:
        """The hint at the size of a pass, [1, 3, height, width], 0..1, on the ControlNet's device.

        One channel where an adapter takes grey.
        """
        kept = self._hints.setdefault(control, {})
        if size not in kept:
            grey = net.network.config.get("in_channels") == 1 and net.is_adapter
            kept[size] = _pixels(_fitted(control.hint, size, self._downsampling), grey=grey)
        return kept[size].to(net.network.device, net.network.dtype)

    def _misfit(self, net: object) -> str | None:
        if not isinstance(net, LoadedControl):
            return "it is of a format that this model cannot use"
        unet, other = self._unet.config, net.network.config
        if net.is_adapter:
            ours, theirs = list(unet.block_out_channels), list(other.channels)
            if theirs[: len(ours)] != ours[: len(theirs)]:
                return f"its widths are {theirs}, and the model's {ours}"
            return None
        for key, what in WIDTHS.items():
            ours, theirs = unet.get(key), other.get(key)
            if _plain(ours) != _plain(theirs):
                return f"its {what} is {theirs}, and the model's {ours}"
        return None


WIDTHS = {
    "cross_attention_dim": "width of the text",
    "block_out_channels": "width",
    "layers_per_block": "number of layers",
    "addition_embed_type": "further input",
}
"""What of their configurations a UNet and its ControlNet have in common, in words."""


def _plain(value: Any) -> object:
    return list(value) if isinstance(value, list | tuple) else value


def _seamless(parts: Parts | None) -> str:
    return "" if parts is None else parts.seamless


def _weighted(
    made: Sequence[torch.Tensor],
    rows: Sequence[Row],
    is_adapter: bool,  # noqa: FBT001
) -> list[torch.Tensor]:
    """The residuals, or an adapter's features, times what each row makes of them."""
    weighted = []
    for depth, residual in enumerate(made):
        softer = SOFTER_FEATURES[depth] if is_adapter else SOFTER ** (DEEPEST - depth)
        scales = [
            row.control.use.weight * (1.0 if row.control.use.mode == "balanced" else softer)
            for row in rows
        ]
        factor = torch.tensor(scales, dtype=residual.dtype, device=residual.device)
        weighted.append(residual * factor[:, None, None, None])
    return weighted


def _add(
    totals: list[torch.Tensor],
    weighted: Sequence[torch.Tensor],
    places: torch.Tensor,
    latents: torch.Tensor,
) -> None:
    """Add residuals of some rows to those of all; a row may be there twice."""
    for depth, residual in enumerate(weighted):
        shape = (len(latents), *residual.shape[1:])
        whole = torch.zeros(shape, dtype=latents.dtype, device=latents.device)
        whole = whole.index_add(0, places, residual.to(latents.dtype))
        if depth < len(totals):
            totals[depth] = totals[depth] + whole
        else:
            totals.append(whole)


def _fitted(hint: Image.Image, size: tuple[int, int], cell: int) -> Image.Image:
    """The hint at a size of whole cells; its edge fills a part of one that is missing."""
    import numpy as np
    from PIL import Image

    right, below = size[0] - hint.width, size[1] - hint.height
    if not (0 <= right < cell and 0 <= below < cell):
        return resized(hint, size)
    if right or below:
        padded = np.pad(np.asarray(hint), ((0, below), (0, right), (0, 0)), mode="edge")
        return Image.fromarray(padded)
    return hint


def _pixels(hint: Image.Image, *, grey: bool) -> torch.Tensor:
    """[1, channels, height, width], 0..1, float32."""
    import numpy as np

    values = np.asarray(hint.convert("L" if grey else "RGB"), dtype=np.float32) / 255
    pixels = torch.from_numpy(values)
    return pixels[None, None] if grey else pixels.permute(2, 0, 1)[None]
