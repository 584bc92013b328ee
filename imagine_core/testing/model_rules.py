"""The rules of loaded models, each with the check that raises if it is broken."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from imagine_core.engine.forward import stack
from imagine_core.interfaces import Conditioning
from imagine_core.noise import NoiseModel

if TYPE_CHECKING:
    from PIL import Image

    from imagine_core.testing.loader_under_test import LoadedModel

PROMPTS = ("", "a (red:1.3) fox, 狐狸 🦊", "a very long walk, " * 60)
DEEP = 6
PREDICTIONS = {"vp": {"epsilon", "v_prediction", "sample"}, "flow": {"flow"}}


def described(loaded: LoadedModel) -> None:
    """It says what its latents are like and what noise it was trained on."""
    model = loaded.model
    for field in ("latent_channels", "downsampling"):
        count: object = getattr(model, field)
        assert isinstance(count, int), f"{field} is {count!r}"
        assert count >= 1, f"{field} is {count}"
    noise: object = model.noise
    assert isinstance(noise, NoiseModel), f"its noise is {noise!r:.60}"
    said = loaded.info.noise
    assert noise.kind == said, f"its noise is of the kind {noise.kind!r}, not {said!r} as was said"
    kinds = PREDICTIONS.get(noise.kind, {noise.prediction_type})
    assert noise.prediction_type in kinds, f"it predicts {noise.prediction_type!r}"
    levels = torch.tensor([noise.level(i / 99) for i in range(100)], dtype=torch.float64)
    assert levels.isfinite().all(), "its noise levels are not finite"
    assert (levels.diff() > 0).all(), "its noise levels do not rise"
    for level in levels.tolist():
        again = noise.sigma(noise.timestep(level))
        assert abs(again / level - 1) < 1e-3, f"its level {level:.3g} is told as {again:.3g}"
    digest = model.model_hash
    known = digest is None or re.fullmatch("[0-9a-f]{10}", digest)
    assert known, f"its hash is {digest!r}, not 10 hex digits"


def complete(loaded: LoadedModel) -> None:
    """No weight was forgotten: none is on the meta device, none is NaN."""
    for tensor in _tensors(loaded.model):
        assert not tensor.is_meta, "a weight was never filled: it is on the meta device"
        if tensor.is_floating_point():
            assert tensor.float().isfinite().all(), "a weight is not finite"


def prompts(loaded: LoadedModel) -> None:
    """Prompts of any length and script are encoded, the same way each time."""
    for prompt in PROMPTS:
        said = f"of the prompt {prompt!r:.30}"
        found: object = _encoded(loaded, prompt)
        assert isinstance(found, Conditioning), f"it makes no Conditioning {said}"
        context = found.context
        assert context.ndim == 3, f"the context {said} has the shape {tuple(context.shape)}"
        rows = {len(tensor) for tensor in (context, *found.extras.values())}
        assert rows == {1}, f"the conditioning {said} has {rows} rows, not one"
        assert context.isfinite().all(), f"the context {said} is not finite"
        again = _encoded(loaded, prompt).context
        assert torch.equal(context, again), f"the context {said} is another the second time"
    fox, boat = (_encoded(loaded, prompt).context for prompt in ("a fox", "a boat"))
    assert not torch.equal(fox, boat), "every prompt is encoded alike"


def predictions(loaded: LoadedModel) -> None:
    """Rows of a forward do not see each other, and come out as float32 of the same shape."""
    rows = [_encoded(loaded, "a fox"), _encoded(loaded, PROMPTS[-1])]
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, *_latent_shape(loaded)[1:], generator=generator)
    times = torch.tensor([801.0, 17.25])
    both = _predict(loaded, latents, times, stack(rows))
    assert both.shape == latents.shape, f"a prediction has the shape {tuple(both.shape)}"
    assert both.dtype == torch.float32, f"a prediction is {both.dtype}, not float32"
    assert both.isfinite().all(), "a prediction is not finite"
    for i, row in enumerate(rows):
        alone = _predict(loaded, latents[i : i + 1], times[i : i + 1], row)
        away = float((alone - both[i : i + 1]).abs().max())
        limit = 0.02 * max(1.0, float(alone.abs().max()))
        assert away < limit, f"a row's prediction is {away:.2g} away when another is beside it"


def pictures(loaded: LoadedModel) -> None:
    """Pictures become latents and latents pictures, each of its size."""
    from PIL import Image

    width, height = loaded.size
    shape = _latent_shape(loaded)
    picture = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    first, again = (_latent(loaded, picture) for _ in range(2))
    assert tuple(first.shape) == shape, f"a latent has the shape {tuple(first.shape)}, not {shape}"
    assert first.dtype == torch.float32, f"a latent is {first.dtype}, not float32"
    assert first.isfinite().all(), "a latent is not finite"
    assert torch.equal(first, again), "the same generator gives another latent the second time"
    sizes = {"decode": loaded.size, "preview": (shape[3], shape[2])}
    for method, size in sizes.items():
        made = getattr(loaded.model, method)(first)
        said = f"`{method}` makes a picture {made.size} {made.mode}, not {size} RGB"
        assert (made.size, made.mode) == (size, "RGB"), said


def closing(loaded: LoadedModel) -> None:
    """Closing it gives the memory of its weights back, while the object itself lives on."""
    weights = [weakref.ref(tensor) for tensor in _tensors(loaded.model)]
    loaded.model.close()
    gc.collect()
    left = sum(weight() is not None for weight in weights)
    assert not left, f"{left} of {len(weights)} weights are still there after `close`"


def _encoded(loaded: LoadedModel, prompt: str) -> Conditioning:
    width, height = loaded.size
    return loaded.model.encode_prompt(prompt, clip_skip=1, width=width, height=height)


def _predict(
    loaded: LoadedModel, latents: torch.Tensor, times: torch.Tensor, rows: Conditioning
) -> torch.Tensor:
    place = rows.context.device
    return loaded.model.predict(latents.to(place), times.to(place), rows).cpu()


def _latent(loaded: LoadedModel, picture: Image.Image) -> torch.Tensor:
    return loaded.model.encode_image(picture, torch.Generator().manual_seed(5))


def _latent_shape(loaded: LoadedModel) -> tuple[int, int, int, int]:
    (width, height), cell = loaded.size, loaded.model.downsampling
    return (1, loaded.model.latent_channels, height // cell, width // cell)


def _tensors(model: object) -> Iterator[torch.Tensor]:
    """The parameters and buffers of every network that a model holds, however deep."""
    seen: set[int] = set()
    pending: list[tuple[Any, int]] = [(model, 0)]
    while pending:
        item, depth = pending.pop()
        if id(item) in seen or depth > DEEP:
            continue
        seen.add(id(item))
        if isinstance(item, torch.nn.Module):
            yield from item.parameters()
            yield from item.buffers()
        elif isinstance(item, dict):
            pending += [(each, depth + 1) for each in item.values()]
        elif isinstance(item, list | tuple):
            pending += [(each, depth + 1) for each in item]
        else:
            pending += [(each, depth + 1) for each in _attributes(item)]


def _attributes(item: object) -> list[Any]:
    slots = [name for kind in type(item).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*getattr(item, "__dict__", {}).values(), *(getattr(item, s, None) for s in slots)]


MODEL_RULES: tuple[tuple[str, Callable[[LoadedModel], None]], ...] = (
    ("model-described", described),
    ("model-complete", complete),
    ("model-prompts", prompts),
    ("model-predictions", predictions),
    ("model-pictures", pictures),
    ("model-closing", closing),
)
