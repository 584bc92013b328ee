"""The small text encoder in the shape of CLIP's."""

import random
from pathlib import Path
from typing import Any

from doodle.captions import caption
from doodle.facts import (
    NEON,
    NOTHING,
    RIDER,
    SIDES,
    SIZES,
    Scene,
    random_scene,
)
from doodle.runs import device, save_atomically, say, wait_while_paused
from doodle.styles import STYLES
from doodle.subjects import COLORS, SUBJECTS
from doodle.tokenizer import LENGTH, load_tokenizer, tokens_of
from doodle.view import PLACES, TIMES

WIDTH, LAYERS, HEADS = 128, 3, 4
VALUES: dict[str, tuple[Any, ...]] = {
    "subject": (*SUBJECTS, NOTHING, NEON, RIDER),
    "color": (*COLORS, ""),
    "place": PLACES,
    "time": TIMES,
    "style": STYLES,
    "size": tuple(SIZES),
    "side": tuple(SIDES),
    "hat": (False, True),
}


def new_text_encoder(tokenizer: Any) -> Any:
    """An untrained CLIPTextModel for `tokenizer`."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, max_position_embeddings=LENGTH,
        projection_dim=WIDTH, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip


def facts_of(scenes: list[Scene]) -> dict[str, Any]:
    """The number of each fact of `scenes` in the list of what it can be."""
    import torch

    return {key: torch.tensor([names.index(getattr(s, key)) for s in scenes])
            for key, names in VALUES.items()}  # fmt: skip


def train_encoder(state: Path, steps: int) -> None:
    """Teaches the text encoder to tell the facts of a scene from its caption.

    The denoiser learns to listen only once the text says something: taught from nothing along
    with it, the encoder's output stays all alike for a long time, and goes unheard.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(2)
    tokenizer = load_tokenizer(state / "tokenizer")
    encoder = new_text_encoder(tokenizer).to(device())
    heads = nn.ModuleDict({key: nn.Linear(WIDTH, len(names)) for key, names in VALUES.items()})
    parameters = [*encoder.parameters(), *heads.to(device()).parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    rng = random.Random("text")
    for step in range(steps):
        wait_while_paused()
        scenes = [random_scene(rng) for _ in range(64)]
        tokens = tokens_of(tokenizer, [caption(s, rng) for s in scenes]).to(device())
        words = encoder(tokens).last_hidden_state
        # From the last token on, every place has to know, and so has the mean of all.
        late = words[:, rng.randrange(LENGTH - 12, LENGTH)]
        truth = {key: value.to(device()) for key, value in facts_of(scenes).items()}
        losses = [functional.cross_entropy(heads[key](seen), value)
                  for key, value in truth.items() for seen in (late, words.mean(1))]  # fmt: skip
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        rate.step()
        if step % 50 == 49:
            right = (heads["subject"](late).argmax(1) == truth["subject"]).float().mean()
            say(f"text: step {step + 1} loss {float(loss) / 2:.3f} subjects right {right:.0%}")
    save_atomically(encoder.state_dict(), state / "text.pt")
