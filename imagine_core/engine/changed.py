"""A model as one request changes it: with its LoRAs, ControlNets, embeddings and VAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from imagine_core.engine.enlarging import LANCZOS
from imagine_core.errors import FieldError, RequestError
from imagine_core.parts import AppliedControl, AppliedLora, Parts

if TYPE_CHECKING:
    from pathlib import Path

    from imagine_core.engine.admission import Admitted
    from imagine_core.interfaces import DiffusionModel, ModelInfo, UpscalerSpec
    from imagine_core.parts import PictureCodec, Upscaler
    from imagine_core.types import ResolvedRequest


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ChangedModel:
    """A model and what a request brings to it.

    Attributes:
        model: The model, which others use too.
        encoder, decoder: What turns pictures into latents, and latents into pictures.
        parts: What changes the model itself.
        upscaler: What enlarges for the hires fix.
        is_maskable: Whether the model paints into masks by inputs of its own.
        named: All of them by the names that their hashes have in pictures.
        warnings: What of them is left out.
    """

    model: DiffusionModel
    encoder: PictureCodec
    decoder: PictureCodec
    parts: Parts = field(default_factory=Parts)
    upscaler: UpscalerSpec | Upscaler = LANCZOS
    is_maskable: bool = False
    named: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """The hashes that are known by now, as in `GenerationResult`."""
        return {name: part.hash for name, part in self.named.items() if part.hash is not None}


def changed(admitted: Admitted, leased: Mapping[Path, Any]) -> ChangedModel:
    """The model of a request with what it brings.

    Args:
        admitted: The request.
        leased: What is loaded of it, by path.

    Raises:
        RequestError: The model cannot take one of the LoRAs.
    """
    model, brought, request = leased[admitted.info.path], admitted.brought, admitted.request
    loras = [leased[info.path] for info in brought.loras]
    embeddings = {info.name: leased[info.path] for info in brought.embeddings}
    nets = [leased[info.path] for info in brought.controls]
    parts = Parts(
        tuple(map(AppliedLora, loras, request.loras)),
        embeddings,
        tuple(map(AppliedControl, nets, request.controls, admitted.hints)),
        request.tiling,
    )
    vae = None if brought.vae is None else leased[brought.vae.path]
    encoder = decoder = _codec(model, brought.vae, leased, "vae", request)
    if brought.decoder is not None:
        decoder = _codec(model, brought.decoder, leased, "decoder", request)
    upscaler = admitted.upscaler
    if brought.upscaler is not None:
        upscaler = leased[brought.upscaler.path]
    return ChangedModel(
        model=model,
        encoder=encoder,
        decoder=decoder,
        parts=parts,
        upscaler=upscaler,
        is_maskable="mask" in admitted.info.takes,
        named={
            **{f"control:{info.name}": leased[info.path] for info in brought.controls},
            **{f"lora:{info.name}": leased[info.path] for info in brought.loras},
            **{f"embed:{name}": each for name, each in embeddings.items()},
            **({} if vae is None else {"vae": vae}),
        },
        warnings=model.fit(parts) if parts else (),
    )


def _codec(
    model: Any,
    info: ModelInfo | None,
    leased: Mapping[Path, Any],
    field: str,
    request: ResolvedRequest,
) -> PictureCodec:
    """The model with a VAE; an error has its name and the field that asked for it."""
    if info is None and not (request.vae_tiling or request.tiling):
        return cast("PictureCodec", model)
    vae = None if info is None else leased[info.path]
    try:
        codec = model.codec(vae, tiled=request.vae_tiling, seamless=request.tiling)
        return cast("PictureCodec", codec)
    except RequestError as error:
        name = "its own VAE" if info is None else repr(info.name)
        fields = [FieldError(field, f"{name} {each.message}") for each in error.fields]
        raise RequestError(fields) from error
