"""Trains the autoencoder: 16 x 16 pixels to 16 numbers, on crops of freshly drawn scenes."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from doodle.facts import random_scene
from doodle.runs import Meter, Run, autocast, device, every, say
from doodle.scenes import draw

CONFIG: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 16, "act_fn": "relu",
    "encoder_block_out_channels": [48] * 5, "decoder_block_out_channels": [48] * 5,
    "num_encoder_blocks": [0, 0, 1, 3, 4], "num_decoder_blocks": [5, 4, 2, 1, 0],
    "scaling_factor": 1.0,
}  # fmt: skip
SIDES = (256, 256, 320, 384, 448, 512, 512, 512, 512, 640, 768)
CROP, BATCH, POOL, NOISE = 128, 12, 600, 0.08


class Normalized(nn.Module):
    """An AutoencoderTiny whose latents are brought to mean 0 and deviation 1 by running figures."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import AutoencoderTiny

        self.net = AutoencoderTiny(**CONFIG).to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.zeros(CONFIG["latent_channels"]))
        self.register_buffer("deviation", torch.ones(CONFIG["latent_channels"]))

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """The normalized latents of `pictures`."""
        z = self.net.encoder(pictures).float()
        if self.training:
            with torch.no_grad():
                self.mean.lerp_(z.mean((0, 2, 3)), 0.02)
                self.deviation.lerp_(z.std((0, 2, 3)), 0.02)
        return (z - self.mean[:, None, None]) / (self.deviation[:, None, None] + 1e-4)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """`pictures` through noisy latents and back."""
        z = self.encode(pictures)
        return self.net.decoder(z + NOISE * torch.randn_like(z)).float()

    def folded(self) -> Any:
        """A plain AutoencoderTiny with the normalization inside its encoder's last convolution."""
        from diffusers import AutoencoderTiny

        plain = AutoencoderTiny(**CONFIG)
        plain.load_state_dict(self.net.state_dict())
        last = plain.encoder.layers[-1]
        with torch.no_grad():
            deviation = self.deviation + 1e-4
            last.weight.div_(deviation[:, None, None, None])
            last.bias.sub_(self.mean).div_(deviation)
        return plain.eval()


def tensor(image: Image.Image) -> torch.Tensor:
    """A picture as 3 x H x W numbers from -1 to 1."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1


def picture(values: torch.Tensor) -> Image.Image:
    """The picture of 3 x H x W numbers from -1 to 1."""
    pixels = ((values.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.cpu().numpy())


class Crops:
    """Crops of a pool of scenes, of which the oldest is replaced by a new one all the time."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.pool: list[np.ndarray[Any, Any]] = []
        self.next = 0

    def _drawn(self) -> np.ndarray[Any, Any]:
        rng = self.rng
        side = rng.choice(SIDES)
        size = (side, side) if rng.random() < 0.8 else (side, max(256, side * 2 // 3))
        return np.asarray(draw(random_scene(rng), *size, seed=rng.getrandbits(32)).image)

    def batch(self, count: int, crop: int) -> torch.Tensor:
        """`count` squares of `crop` pixels from the pool."""
        fresh = 12 if len(self.pool) < POOL else int(self.rng.random() < 0.5)
        for _ in range(fresh):
            drawn = self._drawn()
            if len(self.pool) < POOL:
                self.pool.append(drawn)
            else:
                self.pool[self.next % POOL] = drawn
                self.next += 1
        cut = np.stack([self._cut(self.rng.choice(self.pool), crop) for _ in range(count)])
        pixels = torch.from_numpy(cut).permute(0, 3, 1, 2).float() / 127.5 - 1
        return pixels.to(device(), memory_format=torch.channels_last)

    def _cut(self, image: np.ndarray[Any, Any], crop: int) -> np.ndarray[Any, Any]:
        # Multiples of 8: pixel art keeps to its grid, as in whole pictures.
        y = self.rng.randrange(0, image.shape[0] - crop + 1, 8)
        x = self.rng.randrange(0, image.shape[1] - crop + 1, 8)
        part = image[y : y + crop, x : x + crop]
        return part[:, ::-1] if self.rng.random() < 0.5 else part


def loss_of(out: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, float]:
    """L1, L2, the L1 of the gradients (sharp edges) and colour's own: of all it is learnt last."""
    flat = functional.l1_loss(out, target)
    edges = functional.l1_loss(out.diff(dim=2), target.diff(dim=2))
    edges = edges + functional.l1_loss(out.diff(dim=3), target.diff(dim=3))
    wrong = out - target
    tint = (wrong[:, 0] - wrong[:, 1]).abs().mean() + (wrong[:, 2] - wrong[:, 1]).abs().mean()
    broad = functional.avg_pool2d(wrong, 8).abs().mean()
    return flat + wrong.square().mean() + 0.5 * edges + 0.5 * tint + broad, flat.item()


def held_out() -> list[Image.Image]:
    """Scenes that no training seed draws."""
    rng = random.Random("held out")
    sizes = [(256, 256)] * 8 + [(512, 512)] * 16
    return [draw(random_scene(rng), *s, seed=rng.getrandbits(40)).image for s in sizes]


@torch.no_grad()
def judge(model: Any, folder: Path, name: str) -> float:
    """The mean PSNR on held-out scenes, with a sheet of originals and results beside them."""
    scores, tiles = [], []
    for image in held_out():
        x = tensor(image)[None].to(device())
        y = model.decoder(model.encoder(x)).clamp(-1, 1)
        scores.append(float(10 * torch.log10(4 / functional.mse_loss(y, x))))
        tiles += [image, picture(y[0])]
    sheet = Image.new("RGB", (8 * 256, 6 * 256))
    for i, tile in enumerate(tiles):
        sheet.paste(tile.resize((256, 256)), (i % 8 * 256, i // 8 * 256))
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / f"{name}.png")
    small, large = sum(scores[:8]) / 8, sum(scores[8:]) / 16
    say(f"held-out PSNR {small:.2f} dB at 256, {large:.2f} dB at 512")
    return large


def averaged(run: Run) -> Any:
    """The plain autoencoder with the averaged weights."""
    shown = Normalized().to(device())
    shown.load_state_dict(run.average.values)
    return shown.folded().to(device())


def train(state: Path, minutes: float) -> None:
    """Trains for `minutes` in all and leaves state/autoencoder.pt and state/vae."""
    torch.manual_seed(1)
    model = Normalized().to(device())
    run = Run(model, state / "autoencoder.pt", rate=1.5e-3, minutes=minutes, decay=0.998)
    crops, meter, due = Crops(run.step + 7), Meter(run, 100), every(240)
    for _ in run.steps():
        batch = crops.batch(BATCH, CROP)
        with autocast():
            out = model(batch)
        loss, flat = loss_of(out, batch)
        run.learn(loss)
        meter.feed(loss=loss.item(), l1=flat)
        if due():
            judge(averaged(run), state / "samples", f"autoencoder_{run.step:06d}")
    final = averaged(run)
    judge(final, state / "samples", "autoencoder_final")
    final.save_pretrained(state / "vae")
