"""Forwards with a ControlNet beside the same forwards without, at SD1.5's size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measure import interleaved, median, row

from imagine_core.parts import AppliedControl, Parts
from imagine_core.types import ControlUse
from imagine_plugins.loaders.architectures import SD1
from imagine_plugins.loaders.control_networks import LoadedControl
from imagine_plugins.loaders.controls import Controls

SIZE, ROUNDS = 512, 3


def controls() -> None:
    """float32, 512x512, two rows, for guidance; then the same among rows without one."""
    from diffusers import ControlNetModel, UNet2DConditionModel
    from PIL import Image

    unet: Any = UNet2DConditionModel.from_config(dict(SD1.unet)).eval()
    net = ControlNetModel.from_unet(unet).eval()
    for network in (unet, net):
        network.requires_grad_(requires_grad=False)
    share = sum(w.numel() for w in net.parameters()) / sum(w.numel() for w in unet.parameters())
    print(f"The ControlNet has {share:.0%} of the UNet's parameters.\n")
    hint = Image.linear_gradient("L").resize((SIZE, SIZE)).convert("RGB")
    use = ControlUse(name="net", image=b"")
    parts = Parts(controls=(AppliedControl(LoadedControl(net), use, hint),))
    steering = Controls(unet, 8)
    row("rows with / rows", "without s", "with s", "ratio")
    row("---", "---", "---", "---")
    for steered, count in ((2, 2), (2, 4)):
        rows = [parts] * steered + [None] * (count - steered)
        works: list[Callable[[], object]] = [
            partial(forward, unet, steering, [None] * count),
            partial(forward, unet, steering, rows),
        ]
        without, with_one = interleaved(ROUNDS, *works)
        ratio = median([b / a for a, b in zip(without, with_one, strict=True)])
        figures = (f"{median(without):.2f}", f"{median(with_one):.2f}", f"{ratio:.3f}")
        row(f"{steered} / {count}", *figures)


@torch.inference_mode()
def forward(unet: Any, steering: Controls, rows: list[Parts | None]) -> None:
    """One forward."""
    latents = torch.randn(len(rows), 4, SIZE // 8, SIZE // 8)
    times, context = torch.full((len(rows),), 500.0), torch.randn(len(rows), 77, 768)
    steered = steering.residuals(latents, times, context, {}, rows)
    unet(latents, times, encoder_hidden_states=context, **steered)
