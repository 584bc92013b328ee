"""Judges doodle: pictures of random prompts with fixed seeds, and what the judge sees in them."""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from PIL import Image

from doodle.facts import Scene
from doodle.styles import STYLES
from doodle.subjects import COLORS, SUBJECTS
from doodle.view import PLACES, TIMES
from doodle.words import PLACE_WORDS, STYLE_AFTER, TIME_WORDS

STEPS, GUIDANCE = 25, 7.0
GOALS = {"subject": 0.90, "color": 0.95, "place": 0.95, "time": 0.95}


def prompts(count: int) -> list[tuple[str, Scene]]:
    """The first `count` of an endless list of prompts that name all their facts."""
    rng = random.Random("evaluation")
    return [_prompt(rng) for _ in range(count)]


def _prompt(rng: random.Random) -> tuple[str, Scene]:
    name, color = rng.choice(list(SUBJECTS)), rng.choice(list(COLORS))
    place, time = rng.choice(PLACES), rng.choice(TIMES)
    style = rng.choices(STYLES, (70, 10, 10, 10))[0]
    words = [f"{'an' if color[0] in 'aeiou' else 'a'} {color} {name}"]
    words += [rng.choice(PLACE_WORDS[place][:3]), rng.choice(TIME_WORDS[time][:3])]
    text = " ".join(words) if rng.random() < 0.5 else ", ".join(words)
    if style != "plain":
        text += f", {STYLE_AFTER[style][0]}"
    return text, Scene(name, color, place, time, style)


def paint(model: Path, folder: Path, *, count: int, side: int, batch: int) -> None:
    """Paints the pictures that `folder` has not yet, each from a seed of its own."""
    import torch
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    from doodle.runs import device, say, wait_while_paused

    pipe = StableDiffusionPipeline.from_pretrained(model, local_files_only=True).to(device())
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    folder.mkdir(parents=True, exist_ok=True)
    todo = [
        (i, text) for i, (text, _) in enumerate(prompts(count)) if not _path(folder, i).exists()
    ]
    for start in range(0, len(todo), batch):
        wait_while_paused()
        part = todo[start : start + batch]
        images = pipe(
            [text for _, text in part], num_inference_steps=STEPS, guidance_scale=GUIDANCE,
            width=side, height=side,
            generator=[torch.Generator().manual_seed(1000 + i) for i, _ in part],
        ).images  # fmt: skip
        for (i, _), image in zip(part, images, strict=True):
            image.save(_path(folder, i))
        if start // batch % 10 == 0:
            say(f"painted {start + len(part)} of {len(todo)}")


def _path(folder: Path, i: int) -> Path:
    return folder / f"{i:04d}.png"


def judged(judge: Any, folder: Path, count: int) -> dict[str, Any]:
    """The judge's verdicts on the pictures of `folder`, compared with their prompts."""
    import numpy as np
    import torch

    from doodle.judge import seen

    asked = [
        (i, text, scene)
        for i, (text, scene) in enumerate(prompts(count))
        if _path(folder, i).exists()
    ]
    pixels = torch.from_numpy(
        np.stack([seen(Image.open(_path(folder, i)).convert("RGB")) for i, _, _ in asked])
    )
    found = judge.verdicts(pixels.permute(0, 3, 1, 2).contiguous(), [s.style for _, _, s in asked])
    pictures = [
        {"index": i, "prompt": text, "seen": verdict,
         "right": {key: verdict[key] == getattr(scene, key) for key in GOALS}}
        for (i, text, scene), verdict in zip(asked, found, strict=True)
    ]  # fmt: skip
    share = {key: sum(p["right"][key] for p in pictures) / len(pictures) for key in GOALS}
    return {"count": len(pictures), "right": share, "by_subject": _by(asked, pictures, "subject"),
            "by_color": _by(asked, pictures, "color"), "by_style": _by(asked, pictures, "style"),
            "pictures": pictures}  # fmt: skip


def _by(asked: list[Any], pictures: list[Any], field: str) -> dict[str, dict[str, float]]:
    """Shares of right answers among the prompts of each subject, colour or style."""
    groups: dict[str, list[Any]] = {}
    for (_, _, scene), entry in zip(asked, pictures, strict=True):
        groups.setdefault(getattr(scene, field), []).append(entry["right"])
    return {
        name: {key: round(sum(r[key] for r in rights) / len(rights), 3) for key in GOALS}
        for name, rights in sorted(groups.items())
    }


def table(report: dict[str, Any]) -> str:
    """The shares beside their goals and the judge's own accuracy, as Markdown."""
    lines = [
        f"| {report['count']} pictures | right | goal | judge on drawings |",
        "|---|---|---|---|",
    ]
    for key, goal in GOALS.items():
        own = report["judge"][key]
        lines.append(f"| {key} | {report['right'][key]:.1%} | {goal:.0%} | {own:.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--state", type=Path, default=Path("doodle-state"))
    add("--model", type=Path, help="a diffusers folder; state/export where not given")
    add("--count", type=int, default=500)
    add("--side", type=int, default=512)
    add("--batch", type=int, default=4)
    add("--threads", type=int, default=2)
    add("--judge-drawings", type=int, default=12_000)
    add("--name", default="evaluation", help="of the folder of pictures and of the report")
    options = parser.parse_args()
    import torch

    from doodle import judge as judges
    from doodle.runs import say

    torch.set_num_threads(options.threads)
    path = options.state / "judge.pt"
    if not path.exists():
        judges.train(path, options.judge_drawings)
    judge = judges.Judge().load(path)
    folder = options.state / options.name
    if options.count:
        paint(
            options.model or options.state / "export",
            folder,
            count=options.count,
            side=options.side,
            batch=options.batch,
        )
    own = judges.accuracy_on_drawings(judge)
    say(f"judge on drawings: {own}")
    if options.count:
        report = {"judge": own, **judged(judge, folder, options.count)}
        (options.state / f"{options.name}.json").write_text(json.dumps(report, indent=1) + "\n")
        print(table(report))


if __name__ == "__main__":
    main()
