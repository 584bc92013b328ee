"""The samplers that diffusers has draw what diffusers' own pipelines draw."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from imagine_core import SamplingTask
from imagine_core.noise import VariancePreserving
from imagine_plugins.samplers import diffusers_schedulers
from imagine_plugins.samplers.diffusers_schedulers import Row
from samplers.driving import registry

# The scheduler configuration of Stable Diffusion 1.5.
CONFIG: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
ROWS = [pytest.param(row, id=row.name) for row in diffusers_schedulers.SAMPLERS]
SHAPE, GUIDANCE = (1, 4, 8, 8), 5.0


class Tiny:
    """A random UNet, a random autoencoder, and what stands for encoded prompts."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        blocks = {"block_out_channels": (16, 32), "norm_num_groups": 8}
        self.unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=8,
            **blocks,
        ).eval()
        self.vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            sample_size=16,
            **blocks,
        ).eval()
        self.negative, self.positive = torch.randn(2, 1, 7, 16)

    def pipeline(self, kind: Any, scheduler: Any, steps: int, seed: int, **rest: Any) -> Any:
        """The latent that a pipeline of diffusers makes."""
        pipe = kind(
            unet=self.unet,
            vae=self.vae,
            text_encoder=None,
            tokenizer=None,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe(
            prompt_embeds=self.positive,
            negative_prompt_embeds=self.negative,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
            **rest,
        ).images

    def sample(self, name: str, task: SamplingTask) -> torch.Tensor:
        """The latent that our sampler makes with the same network, in a plain loop."""
        sampling = registry().get(name).sample(task)
        prediction: Any = None
        context = torch.cat([self.negative, self.positive])
        while True:
            try:
                latent, timestep, _ = sampling.send(prediction)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            both = self.unet(torch.cat([latent] * 2), timestep, context).sample
            negative, positive = both.chunk(2)
            prediction = negative + GUIDANCE * (positive - negative)


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return Tiny()


def task_like_pipeline(seed: int, config: dict[str, Any], **rest: Any) -> SamplingTask:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(SHAPE, generator=generator)
    return SamplingTask(
        noise=noise, noise_model=VariancePreserving(config), generator=generator, **rest
    )


def scheduler_of(row: Row, config: dict[str, Any], **options: Any) -> Any:
    kind = getattr(diffusers, f"{row.scheduler}Scheduler")
    return kind.from_config(config, **row.options, **options)


@pytest.mark.parametrize(
    ("steps", "prediction"), [(2, "epsilon"), (9, "epsilon"), (7, "v_prediction")]
)
@pytest.mark.parametrize("row", ROWS)
def test_txt2img_equals_diffusers(tiny: Tiny, row: Row, steps: int, prediction: str) -> None:
    config = CONFIG | {"prediction_type": prediction}
    expected = tiny.pipeline(
        diffusers.StableDiffusionPipeline,
        scheduler_of(row, config),
        steps,
        seed=3,
        height=16,
        width=16,
        **row.step,
    )
    task = task_like_pipeline(3, config, steps=steps, schedule="default")
    assert (tiny.sample(row.name, task) - expected).abs().max() <= 1e-3


@pytest.mark.parametrize("strength", [0.3, 0.75, 1.0])
@pytest.mark.parametrize("row", ROWS)
def test_img2img_equals_diffusers(tiny: Tiny, row: Row, strength: float) -> None:
    init = torch.randn(SHAPE, generator=torch.Generator().manual_seed(8))
    expected = tiny.pipeline(
        diffusers.StableDiffusionImg2ImgPipeline,
        scheduler_of(row, CONFIG),
        9,
        seed=4,
        image=init,
        strength=strength,
        **row.step,
    )
    task = task_like_pipeline(4, CONFIG, steps=9, schedule="default", init=init, strength=strength)
    assert (tiny.sample(row.name, task) - expected).abs().max() <= 1e-3


def takes_karras(row: Row) -> bool:
    """DEIS does, but wastes its last step on going nowhere, where ours spends it."""
    scheduler = scheduler_of(row, CONFIG)
    return (
        "use_karras_sigmas" in scheduler.config
        and row.schedules != ("default",)
        and (row.scheduler != "DEISMultistep")
    )


@pytest.mark.parametrize("row", [p for p in ROWS if takes_karras(p.values[0])])  # type: ignore[arg-type]
def test_karras_equals_diffusers_use_karras_sigmas(tiny: Tiny, row: Row) -> None:
    expected = tiny.pipeline(
        diffusers.StableDiffusionPipeline,
        scheduler_of(row, CONFIG, use_karras_sigmas=True),
        8,
        seed=5,
        height=16,
        width=16,
    )
    task = task_like_pipeline(5, CONFIG, steps=8, schedule="karras")
    assert (tiny.sample(row.name, task) - expected).abs().max() <= 1e-3


@pytest.mark.parametrize("flag", ["use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas"])
@pytest.mark.parametrize("schedule", ["karras", "exponential", "beta"])
@pytest.mark.parametrize("row", [p for p in ROWS if p.values[0].schedules != ("default",)])  # type: ignore[union-attr]
def test_a_schedule_that_was_asked_for_wins_over_the_models_own(
    tiny: Tiny, row: Row, schedule: str, flag: str
) -> None:
    own = CONFIG | {flag: True, "timestep_spacing": "trailing"}
    asked, expected = (
        tiny.sample(row.name, task_like_pipeline(6, config, steps=5, schedule=schedule))
        for config in (own, CONFIG)
    )
    assert torch.equal(asked, expected)
