"""A model as one request changes it: with its LoRAs, embeddings and VAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from imagine_core.errors import FieldError, RequestError
from imagine_core.parts import AppliedLora, Parts

if TYPE_CHECKING:
    from pathlib import Path

    from imagine_core.engine.admission import Admitted
    from imagine_core.interfaces import DiffusionModel, ModelInfo
    from imagine_core.parts import PictureCodec


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ChangedModel:
    """A model and what a request brings to it.

    Attributes:
        model: The model, which others use too.
        encoder, decoder: What turns pictures into latents, and latents into pictures.
        parts: The LoRAs and embeddings.
        named: All of them by the names that their hashes have in pictures.
        warnings: What of them is left out.
    """

    model: DiffusionModel
    encoder: PictureCodec
    decoder: PictureCodec
    parts: Parts = field(default_factory=Parts)
    named: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """The hashes that are known by now, as in `GenerationResult`."""
        return {name: part.hash for name, part in self.named.items() if part.hash is not None}


def unchanged(model: DiffusionModel) -> ChangedModel:
    """A model that a request brings nothing to."""
    return ChangedModel(model=model, encoder=model, decoder=model)


def changed(admitted: Admitted, leased: Mapping[Path, Any]) -> ChangedModel:
    """The model of a request with what it brings.

    Args:
        admitted: The request.
        leased: What is loaded of it, by path.

    Raises:
        RequestError: The model cannot take one of the LoRAs.
    """
    model, brought = leased[admitted.info.path], admitted.brought
    if not brought.infos:
        return unchanged(model)
    loras = [leased[info.path] for info in brought.loras]
    embeddings = {info.name: leased[info.path] for info in brought.embeddings}
    parts = Parts(tuple(map(AppliedLora, loras, admitted.request.loras)), embeddings)
    vae = None if brought.vae is None else leased[brought.vae.path]
    encoder = decoder = _codec(model, brought.vae, leased, "vae")
    if brought.decoder is not None:
        decoder = _codec(model, brought.decoder, leased, "decoder")
    return ChangedModel(
        model=model,
        encoder=encoder,
        decoder=decoder,
        parts=parts,
        named={
            **{f"lora:{info.name}": leased[info.path] for info in brought.loras},
            **{f"embed:{name}": each for name, each in embeddings.items()},
            **({} if vae is None else {"vae": vae}),
        },
        warnings=model.fit(parts) if parts else (),
    )


def _codec(
    model: Any, info: ModelInfo | None, leased: Mapping[Path, Any], field: str
) -> PictureCodec:
    """The model with a VAE; an error has its name and the field that asked for it."""
    if info is None:
        return cast("PictureCodec", model)
    try:
        return cast("PictureCodec", model.codec(leased[info.path]))
    except RequestError as error:
        fields = [FieldError(field, f"{info.name!r} {each.message}") for each in error.fields]
        raise RequestError(fields) from error
