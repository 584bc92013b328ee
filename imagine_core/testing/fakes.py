"""A device, a model, its loader and a sampler that need no weights and no accelerator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from imagine_core.errors import FieldError, RequestError
from imagine_core.hookspecs import hookimpl
from imagine_core.interfaces import (
    Conditioning,
    Device,
    DiffusionModel,
    Evaluation,
    ModelInfo,
    ModelLoader,
    SamplerSpec,
    Sampling,
    SamplingTask,
)
from imagine_core.noise import VariancePreserving
from imagine_core.testing.fake_parts import KINDS, FakePart, Inverted

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from imagine_core.parts import Parts, PictureCodec, Vae

NOISE = VariancePreserving(
    {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
)
SPREAD = 0.1
"""Standard deviation of the fake model's pictures around their colour."""


class FakeClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.now += seconds


class FakeDevice(Device):
    """The CPU in float32, under a name of its own.

    Attributes:
        free: Answers how many bytes are free; None is that it cannot tell.
    """

    name = "fake"
    label = "Fake device"
    priority = 1000

    def __init__(self) -> None:
        self.free: Callable[[], int | None] = lambda: None

    def free_memory(self) -> int | None:
        """What it is told."""
        return self.free()

    def unavailable(self) -> str | None:
        """Never."""
        return None

    def torch_device(self) -> str:
        """The CPU."""
        return "cpu"

    def dtype(self) -> torch.dtype:
        """float32."""
        import torch

        return torch.float32


class FakeModel:
    """An exact epsilon model of pictures in one colour, which is a function of the prompt.

    LoRAs and embeddings add their colours to it, a ControlNet that of its hint, and a VAE gives
    the negative.

    Args:
        before: Called with the rows before each forward; raise or sleep in it.
        device: Where it computes, as torch calls it.
        paints_masks: Whether it has inputs for a mask.

    Attributes:
        forwards: Rows of each forward so far.
        closed: Whether it was closed.
    """

    latent_channels = 4
    downsampling = 8
    noise = NOISE
    model_hash = "0123456789"

    def __init__(
        self,
        before: Callable[[int], object] = id,
        *,
        device: str = "cpu",
        paints_masks: bool = False,
    ) -> None:
        self.paints_masks = paints_masks
        self.forwards: list[int] = []
        self.before = before
        self.device = device
        self.closed = False

    @staticmethod
    def colour(prompt: str) -> list[float]:
        """The mean of the latent for a prompt, one number a channel, -0.3..0.3.

        Small, so that guidance does not drive the picture into saturation.
        """
        digest = hashlib.sha256(prompt.encode()).digest()
        return [(byte / 127.5 - 1) * 0.3 for byte in digest[:4]]

    def fit(self, parts: Parts) -> tuple[str, ...]:
        """Refuse a LoRA whose name has "misfit" in it, and warn of one with "half"."""
        names = [each.use.name for each in parts.loras]
        if any("misfit" in name for name in names):
            raise RequestError([FieldError("loras", "nothing of it fits")])
        return tuple(f"LoRA {name!r}: half of it is left out" for name in names if "half" in name)

    def codec(
        self, vae: Vae | None = None, *, tiled: bool = False, seamless: str = ""
    ) -> PictureCodec:
        """The negatives, with another VAE."""
        del tiled, seamless
        return self if vae is None else Inverted(self)

    def encode_prompt(
        self,
        prompt: str,
        *,
        clip_skip: int,
        width: int,
        height: int,
        parts: Parts | None = None,
    ) -> Conditioning:
        """The colour, repeated once per 75 words."""
        import torch

        del clip_skip
        chunks = max(1, -(-len(prompt.split()) // 75))
        context = torch.tensor(self.colour(prompt)).expand(1, chunks, 4).contiguous()
        for name, embedding in {} if parts is None else parts.embeddings.items():
            if name.casefold() in prompt.casefold():
                context = context + embedding.vectors["text_encoder"]
        warnings = (f"{chunks} chunks",) if chunks > 1 else ()
        extras = {}
        if self.paints_masks:
            cells = (-(-height // self.downsampling), -(-width // self.downsampling))
            extras["inpaint"] = torch.nn.functional.pad(
                torch.ones(1, 1, *cells), (0, 0, 0, 0, 0, self.latent_channels)
            ).to(self.device)
        return Conditioning(context=context.to(self.device), extras=extras, warnings=warnings)

    def encode_mask(
        self, image: Image.Image, mask: Image.Image, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """The mask, and the latent of the picture."""
        import numpy as np
        import torch

        small = torch.from_numpy(np.array(mask.reduce(self.downsampling), dtype=np.float32) / 255)
        latent = self.encode_image(image, generator)
        mask_cells = small[None, None].ceil().to(self.device)
        return {"inpaint": torch.cat([mask_cells, latent], dim=1)}

    def predict(
        self, latents: torch.Tensor, timesteps: torch.Tensor, conditioning: Conditioning
    ) -> torch.Tensor:
        """The posterior mean of the noise under x0 ~ N(colour, SPREAD^2)."""
        import torch

        self.before(len(latents))
        self.forwards.append(len(latents))
        mean = conditioning.context.mean(dim=1)[:, :, None, None]
        for row, parts in enumerate(conditioning.parts):
            for each in () if parts is None else parts.loras:
                colour = torch.tensor(cast("FakePart", each.lora).colour)
                mean[row] += each.use.weight * colour[:, None, None].to(mean.device)
            for control in () if parts is None else parts.controls:
                mean[row, :3] += control.use.weight * _colour_of(control.hint).to(mean.device)
        if (own := conditioning.extras.get("inpaint")) is not None:
            mean = torch.where(own[:, :1] > 0, mean, own[:, 1:])
        sigmas = torch.tensor([NOISE.sigma(float(t)) for t in timesteps])[:, None, None, None]
        sigmas = sigmas.to(latents.device)
        signal = (1 + sigmas**2) ** -0.5
        noise = sigmas * signal
        return noise * (latents - signal * mean) / ((signal * SPREAD) ** 2 + noise**2)

    def encode_image(self, image: Image.Image, generator: torch.Generator) -> torch.Tensor:
        """Each cell's mean colour; the fourth channel is zero."""
        import numpy as np
        import torch

        del generator
        small = image.reduce(self.downsampling)
        pixels = torch.from_numpy(np.asarray(small, dtype=np.float32) / 127.5 - 1).to(self.device)
        return torch.nn.functional.pad(pixels.permute(2, 0, 1)[None], (0, 0, 0, 0, 0, 1))

    def decode(self, latent: torch.Tensor) -> Image.Image:
        """The first three channels as red, green and blue."""
        small = self.preview(latent)
        factor = self.downsampling
        return small.resize((small.width * factor, small.height * factor), 0)

    def preview(self, latent: torch.Tensor) -> Image.Image:
        """As `decode`, one pixel a cell."""
        import torch
        from PIL import Image

        pixels = ((latent[0, :3] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())

    def close(self) -> None:
        """Note it."""
        self.closed = True


class FakeLoader:
    """Loads `NAME.fake` files, whatever is in them; one whose name has "broken" in it cannot serve.

    Those in folders of other kinds are of those; with "other" in its name, one of them is for other
    models, and with "fast", a VAE is a fast decoder. A model with "inpaint" in its name has inputs
    for a mask.

    Attributes:
        models: Every model loaded so far.
        parts: Everything of another kind loaded so far.
        before_load: Called before each load; raise or wait in it.
        before: Called with the rows before each forward of any of its models.
        tells_progress: Whether a load says how far it is.
    """

    name = "fake"
    tells_progress = False

    def __init__(self) -> None:
        self.models: list[FakeModel] = []
        self.parts: list[FakePart] = []
        self.before_load: Callable[[], object] = lambda: None
        self.before: Callable[[int], object] = id

    def recognise(self, path: Path) -> ModelInfo | None:
        """Files that end in .fake."""
        if path.suffix != ".fake":
            return None
        problem = "it is broken; get another one" if "broken" in path.stem else None
        return ModelInfo(
            name=path.stem,
            path=path,
            loader=self.name,
            family="fake",
            size=path.stat().st_size,
            problem=problem,
            clip_layers=12,
            **_kind(path),
        )

    def load(
        self,
        info: ModelInfo,
        *,
        device: Device,
        full_precision: bool,
        progress: Callable[[float], object] = id,
    ) -> DiffusionModel | FakePart:
        """A new fake model, or a part of one."""
        del full_precision
        for fraction in (0.0, 0.5, 1.0) if self.tells_progress else ():
            progress(fraction)
        self.before_load()
        if info.kind != "model":
            self.parts.append(FakePart(info.name, tuple(FakeModel.colour(info.name))))
            return self.parts[-1]
        paints_masks = "mask" in info.takes
        model = FakeModel(self._before, device=device.torch_device(), paints_masks=paints_masks)
        self.models.append(model)
        return model

    def _before(self, rows: int) -> None:
        self.before(rows)


def _colour_of(hint: Image.Image) -> torch.Tensor:
    """The mean colour of a hint, [3, 1, 1], -0.3..0.3."""
    import numpy as np
    import torch

    mean = np.asarray(hint, dtype=np.float32).mean((0, 1)) / 127.5 - 1
    return torch.from_numpy(mean * 0.3)[:, None, None]


def _kind(path: Path) -> dict[str, Any]:
    """What `ModelInfo` says of the kind of a fake file."""
    folders = [folder.name for folder in path.parents[:2]]
    kind = next((KINDS[name] for name in folders if name in KINDS), None)
    if kind is None:
        masks = ("mask",) if "inpaint" in path.stem else ()
        changing = (each for each in KINDS.values() if each != "upscaler")
        return {"takes": (*changing, *masks)}
    details = {"decoder": "fast"} if "fast" in path.stem else {}
    fits = ("other",) if "other" in path.stem else ("fake",)
    return {"kind": kind, "fits": fits, "details": details}


def euler(task: SamplingTask) -> Sampling:
    """Euler's method over evenly spaced timesteps; the plainest sampler that works."""
    import torch

    noise = task.noise_model
    start = task.first_step
    times = torch.linspace(noise.train_steps - 1, 0, task.steps + 1)[start:]
    sigmas = [noise.sigma(float(t)) for t in times[:-1]] + [0.0]
    if len(sigmas) == 1:
        assert task.init is not None
        return task.init
    x = task.noise * sigmas[0] + (0 if task.init is None else task.init)
    for step in range(len(sigmas) - 1):
        sigma, following = sigmas[step], sigmas[step + 1]
        epsilon = yield Evaluation(x / (1 + sigma**2) ** 0.5, float(times[step]), step)
        x = x + epsilon * (following - sigma)
    return x


class FakePlugin:
    """Registers a fake device, a fake loader and the sampler "test euler"."""

    def __init__(self) -> None:
        self.loader = FakeLoader()
        self.device = FakeDevice()

    @hookimpl
    def register_devices(self, register: Callable[[Device], None]) -> None:
        """Register the fake device."""
        register(self.device)

    @hookimpl
    def register_model_loaders(self, register: Callable[[ModelLoader], None]) -> None:
        """Register the fake loader."""
        register(self.loader)

    @hookimpl
    def register_samplers(self, register: Callable[[SamplerSpec], None]) -> None:
        """Register the plainest sampler."""
        register(SamplerSpec(name="test euler", label="Test Euler", sample=euler))
