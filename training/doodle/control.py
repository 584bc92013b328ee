"""Trains a ControlNet that makes doodle follow edges (Zhang et al. 2023), on drawn scenes."""

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from doodle.autoencoder import picture, tensor
from doodle.captions import caption
from doodle.facts import Scene, training_scene
from doodle.runs import Meter, Run, autocast, device, every, say
from doodle.scenes import draw
from doodle.tokenizer import tokens_of
from doodle.unet import SCHEDULE, signal_levels
from imagine_plugins.preprocessors.canny import HIGH, LOW, canny

DOODLE = Path(__file__).parents[2] / "plugins/imagine_plugins/doodle/models/doodle"
SIZE = 256
WIDTHS = (8, 16, 32, 64, 128)  # of the layers that read the hint: 16 pixels become one cell
BATCH = 16
CAPTIONLESS = 0.5  # of the lessons: then the edges alone say what is there
SOFTER = 0.5  # of the hints have more lines, as of softer thresholds
GAPS = 0.3  # of the hints lack some of their lines
THICK = 0.2  # of the hints have thick lines, as a hand draws them


def hint_of(image: Image.Image, rng: random.Random) -> Image.Image:
    """The edges of a drawing, as the preprocessor or a hand might have drawn them."""
    from PIL import ImageDraw, ImageFilter

    scale = rng.uniform(0.3, 1.0) if rng.random() < SOFTER else 1.0
    edges = canny(image, low=round(LOW * scale), high=round(HIGH * scale))
    if rng.random() < GAPS:
        pen = ImageDraw.Draw(edges)
        for _ in range(rng.randint(1, 5)):
            x, y = rng.randrange(SIZE), rng.randrange(SIZE)
            pen.rectangle((x, y, x + rng.randint(8, 60), y + rng.randint(8, 60)), fill=0)
    return edges.filter(ImageFilter.MaxFilter(3)) if rng.random() < THICK else edges


class Doodle:
    """The bundled model's parts, frozen, in float32."""

    def __init__(self) -> None:
        from diffusers import AutoencoderTiny, UNet2DConditionModel
        from diffusers.models.attention_processor import AttnProcessor
        from transformers import CLIPTextModel, PreTrainedTokenizerFast

        kinds: dict[str, Any] = {
            "unet": UNet2DConditionModel, "vae": AutoencoderTiny, "text_encoder": CLIPTextModel,
        }  # fmt: skip
        parts = {
            name: kind.from_pretrained(DOODLE / name).float().eval().requires_grad_(False)  # noqa: FBT003
            for name, kind in kinds.items()
        }
        self.unet = parts["unet"].to(device(), memory_format=torch.channels_last)
        self.unet.set_attn_processor(AttnProcessor())
        self.vae, self.text = parts["vae"].to(device()), parts["text_encoder"].to(device())
        self.tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(DOODLE / "tokenizer")

    def words(self, texts: list[str]) -> torch.Tensor:
        """[texts, tokens, width]."""
        found: torch.Tensor = self.text(tokens_of(self.tokenizer, texts).to(device()))[0]
        return found


class Scenes:
    """Drawings with their latents and hints; a few are drawn anew with each step.

    Args:
        doodle: Encodes them.
        count: How many there are at once.
        seed: Of the first.
    """

    def __init__(self, doodle: Doodle, count: int, seed: int) -> None:
        self.doodle, self.rng = doodle, random.Random(seed)
        self.kept = [self._one() for _ in range(count)]
        self.place = 0

    @torch.no_grad()
    def _one(self) -> tuple[Scene, torch.Tensor, Image.Image]:
        scene = training_scene(self.rng)
        image = draw(scene, SIZE, SIZE, seed=self.rng.getrandbits(40)).image
        latent = self.doodle.vae.encoder(tensor(image)[None].to(device()))[0].half().cpu()
        return scene, latent, image

    def renew(self, count: int) -> None:
        """Draw `count` of them anew."""
        for _ in range(count):
            self.kept[self.place] = self._one()
            self.place = (self.place + 1) % len(self.kept)

    def batch(self, count: int) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        """Captions, latents and hints of some of them."""
        chosen = self.rng.choices(self.kept, k=count)
        texts = [
            "" if self.rng.random() < CAPTIONLESS else caption(scene, self.rng)
            for scene, _, _ in chosen
        ]
        hints = [pixels(hint_of(image, self.rng)) for _, _, image in chosen]
        latents = torch.stack([latent for _, latent, _ in chosen]).float().to(device())
        return texts, latents, torch.cat(hints).to(device())


def pixels(hint: Image.Image) -> torch.Tensor:
    """[1, 3, height, width], 0..1, as ControlNets read hints."""
    import numpy as np

    values = torch.from_numpy(np.asarray(hint.convert("RGB")).copy()).float() / 255
    return values.permute(2, 0, 1)[None]


def new_control(unet: Any) -> Any:
    """A ControlNet of a UNet: the copy of its encoder, and convolutions of zeros."""
    from diffusers import ControlNetModel
    from diffusers.models.attention_processor import AttnProcessor

    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=WIDTHS)
    net.set_attn_processor(AttnProcessor())
    net.requires_grad_(requires_grad=True)
    return net.to(device(), memory_format=torch.channels_last)


@torch.no_grad()
def wake(net: Any, hints: torch.Tensor) -> None:
    """Scales what reads the hint so that each layer puts out mean 0 and deviation 1 (LSUV).

    As in arXiv:1511.06422. PyTorch's usual weights make lines fainter in each of the ten layers,
    until nothing of them, and no gradient, gets through; the last one begins with zeros.
    """
    reader = net.controlnet_cond_embedding
    nn.init.normal_(reader.conv_out.weight)
    x = hints
    for layer in (reader.conv_in, *reader.blocks, reader.conv_out):
        layer.weight.div_(layer(x).std((0, 2, 3))[:, None, None, None] + 1e-6)
        layer.bias.zero_()
        layer.bias.sub_(layer(x).mean((0, 2, 3)))
        x = nn.functional.silu(layer(x))


class Lesson:
    """Says how wrong doodle is with a ControlNet, by the loss that doodle was trained with."""

    def __init__(self, doodle: Doodle) -> None:
        self.doodle = doodle
        self.alpha, self.sigma = signal_levels()
        snr = (self.alpha / self.sigma) ** 2
        self.weight = (snr + 1).clamp(max=5) / (snr + 1)
        self.unseen: tuple[list[str], torch.Tensor, torch.Tensor] | None = None

    def loss(
        self, net: Any, texts: list[str], latents: torch.Tensor, hints: torch.Tensor
    ) -> torch.Tensor:
        """The loss of one batch; `net` is None for doodle alone."""
        # The noisier, the more often: there the layout is decided.
        t = (torch.rand(len(latents), device=device()).sqrt() * len(self.alpha)).long()
        a, s = self.alpha[t, None, None, None], self.sigma[t, None, None, None]
        noise = torch.randn_like(latents)
        noisy = (a * latents + s * noise).to(memory_format=torch.channels_last)
        steered: dict[str, Any] = {}
        with autocast():
            words = self.doodle.words(texts)
            if net is not None:
                down, middle = net(noisy, t, words, controlnet_cond=hints, return_dict=False)
                steered["down_block_additional_residuals"] = down
                steered["mid_block_additional_residual"] = middle
            out = self.doodle.unet(noisy, t, words, **steered).sample.float()
        wrong = (out - (a * noise - s * latents)).square().mean((1, 2, 3))
        return (wrong * self.weight[t]).mean()

    @torch.no_grad()
    def held_out(self, net: Any) -> tuple[float, float]:
        """The losses on scenes that are never trained on, with and without the ControlNet."""
        if self.unseen is None:
            scenes = Scenes(self.doodle, 2 * BATCH, -1)
            self.unseen = scenes.batch(2 * BATCH)
        with torch.random.fork_rng():
            found = []
            for each in (net, None):
                torch.manual_seed(0)  # the same noise for both
                found.append(self.loss(each, *self.unseen).item())
        return found[0], found[1]


@torch.no_grad()
def sample(  # noqa: PLR0913 - what a picture is asked for with
    doodle: Doodle, net: Any, prompts: list[str], hints: list[Image.Image], *, seed: int = 0,
    steps: int = 20, guidance: float = 5.0, weight: float = 1.0,
) -> list[Image.Image]:  # fmt: skip
    """Pictures of `prompts` that follow `hints`, by dpm++ 2m, all at once."""
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler.from_config(SCHEDULE)
    scheduler.set_timesteps(steps, device=device())
    words = doodle.words([""] * len(prompts) + list(prompts))
    shown = torch.cat([pixels(hint) for hint in hints] * 2).to(device())
    cells = (hints[0].height // 16, hints[0].width // 16)
    noise = torch.randn((len(prompts), 16, *cells), generator=torch.Generator().manual_seed(seed))
    x = noise.to(device())
    for t in scheduler.timesteps:
        both = torch.cat([x, x])
        down, middle = net(
            both, t, words, controlnet_cond=shown, conditioning_scale=weight, return_dict=False
        )
        out = doodle.unet(
            both, t, words,
            down_block_additional_residuals=down, mid_block_additional_residual=middle,
        ).sample  # fmt: skip
        without, given = out.chunk(2)
        x = scheduler.step(without + guidance * (given - without), t, x).prev_sample
    return [picture(doodle.vae.decoder(z[None])[0]) for z in x]


def agreement(drawn: Image.Image, hint: Image.Image, *, reach: int = 2) -> float:
    """F1 of the edges of a picture and of its hint, where edges `reach` pixels apart agree."""
    import numpy as np
    from scipy import ndimage

    ours, theirs = (np.asarray(each.convert("L")) > 127 for each in (canny(drawn), hint))
    near = np.ones((2 * reach + 1, 2 * reach + 1), bool)
    wide = [ndimage.binary_dilation(each, near) for each in (ours, theirs)]
    precision = (ours & wide[1]).sum() / max(1, ours.sum())
    recall = (theirs & wide[0]).sum() / max(1, theirs.sum())
    return float(2 * precision * recall / max(1e-9, precision + recall))


def judge(doodle: Doodle, net: Any, count: int = 30) -> dict[str, float]:
    """The agreement of pictures with the edges of scenes that were never seen, by weight."""
    rng = random.Random("judge")
    scenes = [training_scene(rng) for _ in range(count)]
    images = [draw(scene, SIZE, SIZE, seed=n).image for n, scene in enumerate(scenes)]
    hints, prompts = [canny(image) for image in images], [caption(s, rng) for s in scenes]
    found = {}
    for weight in (0.0, 0.5, 1.0):
        drawn = sample(doodle, net, prompts, hints, seed=1, weight=weight)
        scores = [agreement(*pair) for pair in zip(drawn, hints, strict=True)]
        found[f"F1 at weight {weight:g}"] = sum(scores) / count
    return found


def show(doodle: Doodle, net: Any, path: Path) -> None:
    """A sheet: drawings, their edges, and what is drawn of them with their prompt and another."""
    rng = random.Random("show")
    scenes = [training_scene(rng) for _ in range(6)]
    images = [draw(scene, SIZE, SIZE, seed=n).image for n, scene in enumerate(scenes)]
    hints = [canny(image) for image in images]
    own = sample(doodle, net, [caption(scene, rng) for scene in scenes], hints, seed=1)
    other = sample(doodle, net, ["a pink castle at sunset, watercolor painting"] * 6, hints, seed=2)
    sheet = Image.new("RGB", (6 * SIZE, 4 * SIZE))
    for row, tiles in enumerate((images, hints, own, other)):
        for column, tile in enumerate(tiles):
            sheet.paste(tile, (column * SIZE, row * SIZE))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def export(net: Any, folder: Path) -> None:
    """The ControlNet as a diffusers folder in float16."""
    net.half().save_pretrained(folder)
    for path in filter(Path.is_file, folder.iterdir()):
        path.chmod(0o644)  # safetensors writes for its owner alone


def train(state: Path, minutes: float, scenes: int) -> None:
    """Trains for `minutes` in all; state/control.pt can be resumed and exported at any time."""
    doodle = Doodle()
    run = Run(
        nn.ModuleDict({"net": new_control(doodle.unet)}), state / "control.pt",
        rate=1e-3, minutes=minutes, weight_decay=0.01, warmup=50,
    )  # fmt: skip
    torch.manual_seed(run.step + 5)
    lesson, cache = Lesson(doodle), Scenes(doodle, scenes, run.step + 5)
    if run.step == 0:
        wake(run.module["net"], cache.batch(BATCH)[2])
    say(f"{scenes} scenes are drawn")
    meter, due, look = Meter(run, 50), every(300), every(60)
    for _ in run.steps():
        loss = lesson.loss(run.module["net"], *cache.batch(BATCH))
        run.learn(loss)
        meter.feed(loss=loss.item())
        cache.renew(1)
        if look():
            shares = lesson.held_out(averaged(run, doodle))
            say(f"held-out loss {shares[0]:.4f}, without hints {shares[1]:.4f}")
        if due():
            show(doodle, averaged(run, doodle), state / "samples" / f"control_{run.step:06d}.png")
    net = averaged(run, doodle)
    show(doodle, net, state / "samples" / f"control_{run.step:06d}.png")
    for name, value in judge(doodle, net).items():
        say(f"{name}: {value:.3f}")
    export(net, state / "doodle-canny")


def averaged(run: Run, doodle: Doodle) -> Any:
    """The ControlNet with the averaged weights."""
    shown = nn.ModuleDict({"net": new_control(doodle.unet)}).eval()
    shown.load_state_dict(run.average.values)
    return shown["net"]


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, default=Path("doodle-state"))
    parser.add_argument("--minutes", type=float, default=60, help="in all, over every resumption")
    parser.add_argument("--scenes", type=int, default=2000, help="drawings at once")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options.state, options.minutes, options.scenes)


if __name__ == "__main__":
    main()
