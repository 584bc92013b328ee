"""Weights scale embeddings as A1111's emphasis does, and by no more than the weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imagine_core.plugins import build_plugins
from imagine_core.prompting import parse
from imagine_plugins.loaders.emphasis import weighted
from imagine_plugins.loaders.text import TextEncoder
from imagine_plugins.loaders.tokens import read
from imagine_plugins.loaders.words import Places
from reference import clip_tokenizer, load

COLOURS = ["red", "green", "blue", "gray", "white", "black", "yellow", "pink"]
THINGS = ["fish", "cat", "dog", "house", "ship", "tree", "frog", "castle", "car", "lighthouse"]
PLACES = ["in the snow", "on the beach", "in the woods", "in a city", "by the sea at night"]
STYLES = ["pencil sketch", "watercolor", "pixel art", "at dawn", "big", "tiny", "on the left"]
UNWANTED = ["ugly", "blurry", "dark", "night", "sketch", "watercolor", "rain", "low quality"]
MARKS = ("({})", "(({}))", "[{}]", "[[{}]]")


def doodle() -> TextEncoder:
    (folder,) = build_plugins(only=["imagine-model-doodle"]).model_folders()
    encoder: TextEncoder = load(Path(folder) / "doodle").text
    return encoder


def clip_of_random_weights(*, offset: float) -> TextEncoder:
    """SD1's text encoder; a last norm without offsets leaves each token a mean of zero."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, projection_dim=768,
        num_hidden_layers=12, num_attention_heads=12, max_position_embeddings=77,
        hidden_act="quick_gelu", bos_token_id=49406, eos_token_id=49407,
    )  # fmt: skip
    model = CLIPTextModel(config).eval()
    torch.nn.init.normal_(model.final_layer_norm.bias, std=offset)
    torch.nn.init.normal_(model.final_layer_norm.weight, mean=1, std=offset)
    return TextEncoder(model, clip_tokenizer())


def random_prompt(rng: random.Random) -> list[str]:
    """The words of a prompt, or of a negative one."""
    if rng.random() < 0.3:
        return ", ".join(rng.sample(UNWANTED, rng.randint(2, 6))).split()
    subject = f"a {rng.choice(COLOURS)} {rng.choice(THINGS)}"
    parts = [f"{subject} {rng.choice(PLACES)}", *rng.sample(STYLES, rng.randint(0, 3))]
    return ", ".join(parts).split()


def emphasised(words: list[str], rng: random.Random) -> str:
    """The prompt with one to three weights from 0.5 to 1.5."""
    marked = list(words)
    for place in rng.sample(range(len(words)), min(len(words), rng.randint(1, 3))):
        mark = rng.choice(MARKS) if rng.random() < 0.3 else f"({{}}:{rng.uniform(0.5, 1.5):.2f})"
        marked[place] = mark.format(words[place])
    return " ".join(marked)


@torch.no_grad()
def weighings(
    encoder: TextEncoder, prompts: int, weightings: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The embeddings of random prompts, and weights of their positions as a prompt gives them."""
    rng = random.Random(1)
    for _ in range(prompts):
        words = random_prompt(rng)
        context = encoder.encode(" ".join(words), clip_skip=1).context
        for _ in range(weightings):
            tokens = read(encoder.tokenizer, parse(emphasised(words, rng)), Places({})).tokens
            weights = torch.ones(context.shape[1])
            weights[1 : 1 + len(tokens)] = torch.tensor([weight for _, weight in tokens])
            yield context, weights


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other.double()).norm())


def a1111s_factor(context: torch.Tensor, weights: torch.Tensor) -> float:
    """The mean without weights over the mean with them."""
    return float(context.mean() / (context * weights[None, :, None]).mean())


def check(context: torch.Tensor, weights: torch.Tensor) -> bool:
    """Hold the result to its bounds, and say whether it had to be A1111's."""
    alone = context * weights[None, :, None]
    result = weighted(context, weights)
    limit = distance(alone, context)
    assert distance(result, context) <= limit * (1 + 1e-6)
    factor = a1111s_factor(context, weights)
    size = alone.norm().item()
    if factor > 0:
        assert distance(result, alone * factor) <= (abs(factor - 1) + 1e-5) * size
    is_average = factor * weights.max() >= 1 and factor * weights.min() <= 1
    is_a1111s = bool(is_average and distance(alone * factor, context) <= 0.999 * limit)
    if is_a1111s:
        assert distance(result, alone * factor) <= 1e-5 * size
    return is_a1111s


# ----------------------------------------------------------------------------------- the bounds


def test_a_prompt_of_doodle_moves_no_further_than_its_words_do() -> None:
    found = [check(*weighing) for weighing in weighings(doodle(), prompts=30, weightings=10)]
    assert len(found) == 300
    assert 0.5 < found.count(True) / 300 < 0.95


ENCODERS: dict[str, Callable[[], TextEncoder]] = {
    "doodle": doodle,
    "clip": partial(clip_of_random_weights, offset=0.1),
    "clip without a mean": partial(clip_of_random_weights, offset=0),
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ENCODERS)
def test_20_000_prompts_move_no_further_than_their_words_do(name: str) -> None:
    found = [check(*weighing) for weighing in weighings(ENCODERS[name](), 100, weightings=200)]
    assert len(found) == 20_000


def test_a_weight_on_the_fish_does_not_make_it_a_frog() -> None:
    encoder = doodle()
    plain = encoder.encode("a gray fish in the snow, pencil sketch", clip_skip=1).context
    heavy = encoder.encode("a gray (fish) in the snow, pencil sketch", clip_skip=1).context
    weights = torch.ones(plain.shape[1])
    weights[3] = 1.1
    assert a1111s_factor(plain, weights) < 0
    assert distance(heavy, plain) <= 0.1 * plain[0, 3].norm() * 1.0001
    assert torch.equal(heavy[0, 4:], plain[0, 4:])


WEIGHTS = st.lists(st.floats(-10, 10, width=32), min_size=5, max_size=5)


@given(WEIGHTS, st.integers(0, 1000), st.sampled_from([0.0, 1e-3, 0.1, 1.0]))
def test_no_weights_move_any_embeddings_further_than_they_do_alone(
    given_weights: list[float], seed: int, mean: float
) -> None:
    context = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(seed)) + mean
    weights = torch.tensor([1.0, *given_weights])
    alone = context * weights[None, :, None]
    limit = distance(alone, context)
    assert distance(weighted(context, weights), context) <= limit + 1e-6 * alone.norm()


@given(st.lists(st.floats(0.5, 1.5, width=32), min_size=5, max_size=5), st.integers(0, 1000))
def test_the_heaviest_word_gets_no_lighter_and_the_lightest_no_heavier(
    given_weights: list[float], seed: int
) -> None:
    context = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(seed))
    weights = torch.tensor([1.0, *given_weights])
    ratios = (weighted(context, weights) / context)[0].mean(dim=1)
    assert ratios.max() >= 1 - 1e-5
    assert ratios.min() <= 1 + 1e-5


@pytest.mark.parametrize("vanishes_at", [0.9, 1.01, 1.1, 1.4, -0.5])
def test_a_little_more_weight_changes_a_little_also_where_the_mean_vanishes(
    vanishes_at: float,
) -> None:
    """A1111's factor has its pole at this weight of the third word."""
    context = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(3))
    context -= context.mean(dim=2, keepdim=True)
    context += torch.tensor([0.1, 0.1, 0.0, 0.1, 0.1, 0.1])[None, :, None]
    context[0, 2] -= 0.5 / vanishes_at
    step = 2e-3
    last = None
    for weight in torch.arange(-1, 2, step):
        weights = torch.tensor([1.0, 1.0, weight, 1.0, 1.0, 1.0])
        result = weighted(context, weights)
        if last is not None:
            assert distance(result, last) <= 4 * step * context.norm()
        last = result


# ------------------------------------------------------------------------------- A1111's emphasis


@pytest.mark.parametrize(
    "weights", [[1, 1.1, 1, 1], [1, 0.6, 1, 1], [1, 1.5, 1.3, 1], [1, 0.8, 1.5, 1]]
)
def test_where_tokens_agree_the_mean_is_that_of_the_plain_prompt(weights: list[float]) -> None:
    context = torch.randn(1, 4, 768, generator=torch.Generator().manual_seed(0)) + 0.3
    result = weighted(context, torch.tensor(weights))
    assert result.mean() == pytest.approx(context.mean().item(), rel=1e-5)
    expected = context * torch.tensor(weights)[None, :, None]
    expected *= context.sum() / expected.sum()
    torch.testing.assert_close(result, expected)


def test_an_average_beyond_the_weights_is_no_average() -> None:
    means = torch.tensor([1.0, -0.95, 0.0])
    context = means[None, :, None].expand(1, 3, 8).contiguous()
    heavier_means = weighted(context, torch.tensor([1.0, 1.1, 1.0]))
    torch.testing.assert_close(heavier_means, context * torch.tensor([1, 1.1, 1])[None, :, None])


def test_weights_of_one_and_embeddings_of_zero_change_nothing() -> None:
    context = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(weighted(context, torch.ones(4)), context)
    nothing = torch.zeros(1, 4, 8)
    assert torch.equal(weighted(nothing, torch.tensor([1.0, 2, 3, 4])), nothing)


def test_a_mean_of_zero_is_not_restored() -> None:
    context = torch.tensor([[[1.0], [-1.0], [2.0], [-2.0]]])
    result = weighted(context, torch.tensor([1.0, 1.0, -1.0, 1.0]))
    assert result.isfinite().all()
    assert distance(result, context) <= 4


def test_half_precision_stays_half_precision() -> None:
    context = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0)).half() + 1
    result = weighted(context, torch.tensor([1.0, 1.5, 1.0, 1.0]))
    assert result.dtype == torch.float16
    exact = weighted(context.float(), torch.tensor([1.0, 1.5, 1.0, 1.0]))
    torch.testing.assert_close(result, exact.half())
