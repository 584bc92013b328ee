"""The Stable Diffusion families as the engine sees them: UNet, autoencoder and text encoders."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from imagine_core.embeddings import named_embeddings
from imagine_core.errors import FieldError, RequestError
from imagine_core.interfaces import Conditioning
from imagine_plugins.loaders.autoencoder import Autoencoder, LoadedVae
from imagine_plugins.loaders.controls import Controls
from imagine_plugins.loaders.inpainting import Inpainting
from imagine_plugins.loaders.seamless import acting
from imagine_plugins.loaders.words import misfits, words_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from imagine_core.models.hashing import FileHash
    from imagine_core.noise import NoiseModel
    from imagine_core.parts import Parts, PictureCodec, Vae
    from imagine_plugins.loaders.adapters.rows import Rows
    from imagine_plugins.loaders.text import Encoded, TextEncoder

INPAINT = "inpaint"  # what conditionings call the inputs beside the latent


class StableDiffusion:
    """SD1 and SD2: one text encoder, and a UNet that reads nothing but its output.

    Args:
        unet: A UNet2DConditionModel on the device, in the dtype that it computes in.
        autoencoder: Pictures to latents and back.
        text: The text encoder.
        noise: The noise levels of the training.
        rows: LoRAs in rows of forwards of these networks.
        file_hash: The checkpoint's hash, once it is known; None for a folder.
    """

    def __init__(  # noqa: PLR0913 - a model has that many parts
        self,
        *,
        unet: Any,
        autoencoder: Autoencoder,
        text: TextEncoder,
        noise: NoiseModel,
        rows: Rows,
        file_hash: FileHash | None = None,
    ) -> None:
        self.unet = unet
        self.autoencoder = autoencoder
        self.text = text
        self.noise = noise
        self.rows = rows
        self._hash = file_hash
        self._codecs: WeakKeyDictionary[LoadedVae, Autoencoder] = WeakKeyDictionary()
        self.controls = Controls(unet, autoencoder.downsampling)
        self._inpainting: Inpainting | None = None
        if unet.config.in_channels != autoencoder.latent_channels:
            self._inpainting = Inpainting(autoencoder)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent, as the autoencoder has them."""
        return self.autoencoder.latent_channels

    @property
    def downsampling(self) -> int:
        """Pixels per latent cell along each side."""
        return self.autoencoder.downsampling

    @property
    def model_hash(self) -> str | None:
        """First 10 hex digits of the checkpoint's sha256, once they are known."""
        return None if self._hash is None else self._hash.value

    @torch.no_grad()
    def fit(self, parts: Parts) -> tuple[str, ...]:
        """What of a request's LoRAs is left out; raises `RequestError` for parts that are bad."""
        self.controls.fit(parts)
        return self.rows.fit(parts)

    @torch.no_grad()
    def encode_prompt(
        self,
        prompt: str,
        *,
        clip_skip: int,
        width: int,
        height: int,
        parts: Parts | None = None,
    ) -> Conditioning:
        """Encode a prompt of any length; the size matters to inpainting models alone."""
        self._prepare(parts)
        encoded = self._encoded("text_encoder", self.text, prompt, clip_skip, parts)
        return Conditioning(
            context=encoded.context,
            extras=self._whole(width, height),
            warnings=encoded.warnings,
            unread=encoded.unread,
        )

    @torch.no_grad()
    def encode_mask(
        self, image: Image.Image, mask: Image.Image, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """The inputs of an inpainting model for a picture that is painted where the mask is white.

        As diffusers' inpainting pipelines make them. The latent is drawn from the posterior.
        """
        assert self._inpainting is not None
        return {INPAINT: self._inpainting.part(image, mask, generator)}

    @torch.no_grad()
    def predict(
        self, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """One forward of the UNet; float32 in, float32 out, no wait for the device."""
        dtype = self.unet.dtype
        context, added = conditioning.context.to(dtype), self._added(conditioning.extras)
        steered = self.controls.residuals(
            latents.to(dtype), timesteps, context, added, conditioning.parts
        )
        if self._inpainting is not None:
            latents = torch.cat([latents, conditioning.extras[INPAINT].to(latents.device)], dim=1)
        axes = [parts.seamless if parts is not None else "" for parts in conditioning.parts]
        with acting(self.unet, axes), self.rows.acting("unet", conditioning.parts):
            prediction = self.unet(
                latents.to(dtype),
                timesteps,
                encoder_hidden_states=context,
                added_cond_kwargs=added,
                return_dict=False,
                **steered,
            )[0]
        return prediction.float()  # type: ignore[no-any-return]

    def codec(
        self, vae: Vae | None = None, *, tiled: bool = False, seamless: str = ""
    ) -> PictureCodec:
        """Pictures to latents of this model's scale and back, in other ways than its own."""
        found = self.autoencoder
        if vae is not None:
            if not isinstance(vae, LoadedVae):
                raise RequestError([FieldError("vae", "is of a format that this model cannot use")])
            if vae not in self._codecs:
                self._codecs[vae] = self.autoencoder.replaced(vae)
            found = self._codecs[vae]
        return found.working(tiled=tiled, seamless=seamless)

    def encode_image(self, image: Image.Image, generator: torch.Generator) -> torch.Tensor:
        """The latent of an RGB picture, drawn from the autoencoder's posterior."""
        return self.autoencoder.encode_image(image, generator)

    def decode(self, latent: torch.Tensor) -> Image.Image:
        """The RGB picture of a latent."""
        return self.autoencoder.decode(latent)

    def preview(self, latent: torch.Tensor) -> Image.Image:
        """A quick RGB look at a latent, one pixel per latent cell."""
        return self.autoencoder.preview(latent)

    def close(self) -> None:
        """Release the weights and stop computing the hash."""
        if self._hash is not None:
            self._hash.stop()
        networks = ("unet", "autoencoder", "text", "second", "rows", "controls")
        for part in (*networks, "_inpainting", "_codecs"):
            self.__dict__.pop(part, None)

    def _prepare(self, parts: Parts | None) -> None:
        """Prepare LoRAs for the UNet: what fails there fails one request, not a whole forward."""
        first = None if parts is None else parts.at(0)
        if first is not None:
            self.rows.prepare("unet", first)

    def _encoded(
        self,
        component: str,
        encoder: TextEncoder,
        prompt: str,
        clip_skip: int,
        parts: Parts | None,
    ) -> Encoded:
        """A prompt by one of the text encoders, as the parts of a request change it."""
        embeddings = {} if parts is None else parts.embeddings
        words = {
            **self.rows.words(parts),
            **{name: each.vectors for name, each in embeddings.items()},
        }
        wrong = misfits(words, {name: text.width for name, text in self._texts().items()})
        fitting = {name: vectors for name, vectors in words.items() if name not in wrong}
        encoded = encoder.encode(
            prompt,
            clip_skip=clip_skip,
            words=words_for(component, fitting),
            changed=self.rows.key(component, parts),
            changing=partial(self.rows.acting, component, (parts,)),
        )
        remarks = tuple(wrong[name] for name in named_embeddings(prompt, wrong))
        return replace(encoded, warnings=(*encoded.warnings, *remarks)) if remarks else encoded

    def _texts(self) -> dict[str, TextEncoder]:
        """The text encoders by component."""
        return {"text_encoder": self.text}

    def _added(self, extras: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Further inputs of the UNet by diffusers' names: none in this family."""
        del extras
        return {}

    def _whole(self, width: int, height: int) -> dict[str, torch.Tensor]:
        """What an inpainting model reads where there is no mask: it paints all of the picture."""
        return {} if self._inpainting is None else {INPAINT: self._inpainting.whole(width, height)}


class StableDiffusionXL(StableDiffusion):
    """SDXL: two text encoders, and a UNet that also reads the pooled text and the picture's size.

    Args:
        second: The second text encoder, whose pooled output is used.
        zero_empty_prompt: Whether an empty prompt stands for all-zero embeddings.
        options: As for `StableDiffusion`.
    """

    def __init__(self, *, second: TextEncoder, zero_empty_prompt: bool, **options: Any) -> None:
        super().__init__(**options)
        self.second = second
        self.zero_empty_prompt = zero_empty_prompt

    @torch.no_grad()
    def encode_prompt(
        self,
        prompt: str,
        *,
        clip_skip: int,
        width: int,
        height: int,
        parts: Parts | None = None,
    ) -> Conditioning:
        """Encode a prompt of any length with both encoders, for a picture of that size."""
        self._prepare(parts)
        first = self._encoded("text_encoder", self.text, prompt, clip_skip, parts)
        second = self._encoded("text_encoder_2", self.second, prompt, clip_skip, parts)
        context = torch.cat([first.context, second.context], dim=-1)
        pooled = second.pooled
        if not prompt and self.zero_empty_prompt:
            context, pooled = torch.zeros_like(context), torch.zeros_like(pooled)
        # original size, crop and target size, each height first (Podell et al. 2023, 2.2)
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32)
        return Conditioning(
            context=context,
            extras={
                "text_embeds": pooled,
                "time_ids": sizes.to(context.device),
                **self._whole(width, height),
            },
            warnings=tuple(dict.fromkeys((*first.warnings, *second.warnings))),
            unread=first.unread,
        )

    def _texts(self) -> dict[str, TextEncoder]:
        return {"text_encoder": self.text, "text_encoder_2": self.second}

    def _added(self, extras: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        # time_ids stay float32: bfloat16 would round a size of 1000 to the next multiple of 4.
        return {"text_embeds": extras["text_embeds"], "time_ids": extras["time_ids"]}
