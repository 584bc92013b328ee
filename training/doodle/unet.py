"""Trains the denoiser on cached latents and fresh captions."""

import os
import random
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from doodle.autoencoder import picture
from doodle.captions import caption
from doodle.latents import Latents
from doodle.runs import (
    Meter,
    Run,
    autocast,
    descend,
    device,
    every,
    say,
    wait_while_paused,
)
from doodle.text import new_text_encoder
from doodle.tokenizer import load_tokenizer, tokens_of

WIDTHS = (64, 128, 160)
CONFIG: dict[str, Any] = {
    "sample_size": 32, "in_channels": 16, "out_channels": 16, "layers_per_block": 1,
    "block_out_channels": WIDTHS, "cross_attention_dim": 128,
    # diffusers' name is historical: these are numbers of heads, here of 32 channels each.
    "attention_head_dim": tuple(width // 32 for width in WIDTHS),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
SCHEDULE: dict[str, Any] = {
    # Stable Diffusion's last beta, 0.012, leaves a fifteenth of the picture in the noise: enough to
    # read day or night from, which then is not learnt from the caption (arXiv:2305.08891).
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.02,
    "beta_schedule": "scaled_linear", "prediction_type": "v_prediction",
    "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
    # From pure noise ("leading" starts where some of the picture should show already) to the
    # cleanest level in steps that grow as it does: on any others lms breaks to coloured pieces.
    "timestep_spacing": "linspace", "use_karras_sigmas": True,
}  # fmt: skip
BATCH = 16  # canvases of 256 x 256; of larger ones as many as have that many pixels
DROPOUT = 0.1
EMPHASIS = 3  # of cells that show the subject, which are few, and all that is hard to learn
# Share of the steps on canvases of 256, 512 and other sizes, early and late in the training.
SHARES = {"early": (0.78, 0.15, 0.07), "late": (0.10, 0.40, 0.50)}
LATE = 0.5
ANYWHERE = 0.4  # share of the time steps that are drawn from all of them
PROMPTS = (
    "a red house",
    "a photo of an astronaut riding a horse on mars",
    "a futuristic city at sunset, neon lights",
    "a cat with a tiny hat, watercolor painting",
    "a green boat by the sea at sunset",
    "a blue rocket at night",
    "a yellow duck, pixel art",
    "a purple dragon in the mountains",
    "a black cat in the snow at night",
    "a white rabbit in a forest",
    "a pink castle on a meadow, sketch",
    "a red lighthouse by the sea at night",
)


def build(state: Path) -> nn.ModuleDict:
    """An untrained denoiser, and the text encoder, which has been trained by itself."""
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import AttnProcessor

    text = new_text_encoder(load_tokenizer(state / "tokenizer"))
    text.load_state_dict(torch.load(state / "text.pt", map_location="cpu", weights_only=True))
    unet = UNet2DConditionModel(**CONFIG).to(memory_format=torch.channels_last)
    if device().type == "cpu":  # a sixth faster here than the fused attention's way back
        unet.set_attn_processor(AttnProcessor())
    return nn.ModuleDict({"unet": unet, "text": text.requires_grad_(requires_grad=False)}).to(
        device()
    )


def signal_levels() -> tuple[torch.Tensor, torch.Tensor]:
    """Alpha and sigma of every time step."""
    first, last = SCHEDULE["beta_start"] ** 0.5, SCHEDULE["beta_end"] ** 0.5
    kept = torch.cumprod(1 - torch.linspace(first, last, SCHEDULE["num_train_timesteps"]) ** 2, 0)
    return kept.sqrt().to(device()), (1 - kept).sqrt().to(device())


class Lesson:
    """Draws batches and says how wrong the model is about them."""

    def __init__(self, state: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.cache = Latents(state)
        self.tokenizer = load_tokenizer(state / "tokenizer")
        self.alpha, self.sigma = signal_levels()
        steps = torch.arange(len(self.alpha), device=device())
        snr = (self.alpha[steps] / self.sigma[steps]) ** 2
        # min-SNR-5 (arXiv:2303.09556) shifted by one, min(SNR + 1, 5) on the error of the picture:
        # unshifted it hardly counts the noisiest steps, and those decide sky, ground and layout.
        self.weight = (snr + 1).clamp(max=5) / (snr + 1)

    def _size(self, progress: float) -> tuple[int, int]:
        small, large, other = SHARES["late" if progress > LATE else "early"]
        shares = {(256, 256): small, (512, 512): large}
        areas = {s: s[0] * s[1] for s in self.cache.scenes if s not in shares}
        # The larger, the more there is to learn about them.
        shares |= {size: other * area / sum(areas.values()) for size, area in areas.items()}
        sizes = list(self.cache.scenes)
        return self.rng.choices(sizes, [shares[size] for size in sizes])[0]

    def _steps(self, count: int) -> torch.Tensor:
        """Time steps: some from all of them, most from where subjects take shape.

        There as in arXiv:2403.03206, section 3.1: the ends are easy, the middle is not.
        """
        last = len(self.alpha) - 1
        middle = torch.normal(0.4 * last, 0.15 * last, (count,)).round().clamp(0, last)
        anywhere = torch.rand(count) < ANYWHERE
        steps = torch.where(anywhere, torch.randint(0, last + 1, (count,)), middle.long())
        return steps.to(device())

    def loss(self, model: nn.ModuleDict, progress: float) -> torch.Tensor:
        """The loss on one batch."""
        size = self._size(progress)
        count = max(2, round(BATCH * 256 * 256 / (size[0] * size[1])))
        x, subject, scenes = self.cache.batch(size, count, self.rng)
        x = x.to(device())
        texts = ["" if self.rng.random() < DROPOUT else caption(s, self.rng) for s in scenes]
        tokens = tokens_of(self.tokenizer, texts).to(device())
        t = self._steps(count)
        a, s = self.alpha[t, None, None, None], self.sigma[t, None, None, None]
        noise = torch.randn_like(x)
        noisy = (a * x + s * noise).to(memory_format=torch.channels_last)
        with autocast():
            words = model["text"](tokens).last_hidden_state
            out = model["unet"](noisy, t, words).sample.float()
        wrong = (out - (a * noise - s * x)).square().mean(1)
        wrong = wrong * (1 + EMPHASIS * subject.to(device()))
        return (wrong.mean((1, 2)) * self.weight[t]).mean()


@torch.no_grad()
def sample(  # noqa: PLR0913 - what a picture is asked for with
    model: Any, vae: Any, tokenizer: Any, prompts: list[str], size: tuple[int, int],
    *, seed: int = 0, steps: int = 25, guidance: float = 7.0,
) -> list[Image.Image]:  # fmt: skip
    """Pictures of `prompts` by dpm++ 2m, all at once."""
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler.from_config(SCHEDULE)
    scheduler.set_timesteps(steps, device=device())
    words = model["text"](tokens_of(tokenizer, [""] * len(prompts) + list(prompts)).to(device()))[0]
    shape = (len(prompts), 16, size[1] // 16, size[0] // 16)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device())
    for t in scheduler.timesteps:
        both = torch.cat([x, x]).to(memory_format=torch.channels_last)
        without, given = model["unet"](both, t, words).sample.chunk(2)
        x = scheduler.step(without + guidance * (given - without), t, x).prev_sample
    return [picture(vae.decoder(z[None])[0]) for z in x]


def averaged(run: Run, state: Path) -> nn.ModuleDict:
    """The models with the averaged weights."""
    shown = build(state).eval()
    shown.load_state_dict(run.average.values)
    return shown


def show(run: Run, state: Path) -> None:
    """A sheet of the fixed prompts at 256 x 256 and, of two of them, at 512 x 512."""
    from diffusers import AutoencoderTiny

    vae = AutoencoderTiny.from_pretrained(state / "vae").to(device())
    model, tokenizer = averaged(run, state), load_tokenizer(state / "tokenizer")
    tiles = sample(model, vae, tokenizer, list(PROMPTS), (256, 256), seed=run.step)
    large = sample(model, vae, tokenizer, list(PROMPTS[:2]), (512, 512), seed=run.step)
    sheet = Image.new("RGB", (8 * 256, 4 * 256))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % 6 * 256, i // 6 * 256))
    for i, tile in enumerate(large):
        sheet.paste(tile, (6 * 256, i * 512))
    (state / "samples").mkdir(exist_ok=True)
    sheet.save(state / "samples" / f"unet_{run.step:06d}.png")


def train(state: Path, minutes: float, helpers: int = 0) -> None:
    """Trains for `minutes` in all; state/unet.pt can be resumed and exported at any time."""
    run = Run(build(state), state / "unet.pt", rate=1e-3, minutes=minutes, weight_decay=0.01)
    torch.manual_seed(run.step + 3)
    lesson, meter, due, look = Lesson(state, run.step + 3), Meter(run, 100), every(900), every(60)
    progress = torch.zeros(2).share_memory_()
    helping = [_start_helper(run, state, progress, k) for k in range(helpers)]
    for _ in run.steps():
        progress[0], progress[1] = run.seconds / run.budget, run.learning_rate()
        loss = lesson.loss(run.module, float(progress[0]))
        run.learn(loss)
        meter.feed(loss=loss.item())
        if look():
            lesson.cache.look()
        if due():
            show(run, state)
    progress[0] = 2.0
    for helper in helping:
        helper.join()
    show(run, state)
    say(f"unet: {run.step} steps, {run.seconds / 60:.1f} min")


def _start_helper(run: Run, state: Path, progress: torch.Tensor, number: int) -> Any:
    from torch import multiprocessing

    if number == 0:
        run.share()
    arguments = (run.module, run.optimizer, state, progress, run.step * 10 + number)
    helper = multiprocessing.get_context("spawn").Process(target=_help, args=arguments, daemon=True)
    helper.start()
    return helper


def _help(
    module: nn.ModuleDict, optimizer: Any, state: Path, progress: torch.Tensor, seed: int
) -> None:
    """Trains along on the shared parameters until `progress` says that all is done."""
    torch.set_num_threads(1)
    torch.manual_seed(seed + 77)
    lesson, look, parent = Lesson(state, seed + 77), every(60), os.getppid()
    while progress[0] <= 1 and os.getppid() == parent:
        wait_while_paused()
        if progress[1] > 0:
            loss = lesson.loss(module, float(progress[0]))
            descend(module, optimizer, loss, float(progress[1]))
        if look():
            lesson.cache.look()
