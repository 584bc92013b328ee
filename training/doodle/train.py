"""Trains doodle from nothing, stage by stage; can be stopped and resumed at will."""

import argparse
import os
from pathlib import Path

STAGES = ("tokenizer", "text", "autoencoder", "latents", "unet", "export")


def main() -> None:
    """Reads the command line and runs the stages."""
    options = _options()
    import torch

    torch.set_num_threads(options.threads)
    stages = STAGES if options.stage == "all" else (options.stage,)
    for stage in stages:
        _run(stage, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "--state",
        type=Path,
        default=Path("doodle-state"),
        help="where checkpoints and samples live",
    )
    add("--stage", choices=(*STAGES, "all"), default="all")
    add("--text-steps", type=int, default=3000)
    add("--autoencoder-minutes", type=float, default=240, help="in all, over every resumption")
    add("--unet-minutes", type=float, default=600, help="in all, over every resumption")
    add("--threads", type=int, default=os.cpu_count() or 1)
    add("--helpers", type=int, default=0, help="processes that train the unet along")
    add("--part", default="0/1", help="of the latents, e.g. 0/2 and 1/2 in two processes")
    add("--export-to", type=Path, help="the diffusers folder; state/export where not given")
    return parser.parse_args()


def _run(stage: str, options: argparse.Namespace) -> None:
    from doodle import autoencoder, export, latents, text, tokenizer, unet

    state: Path = options.state
    part, parts = (int(v) for v in options.part.split("/"))
    if stage == "tokenizer" and not (state / "tokenizer").exists():
        tokenizer.train_tokenizer(state / "tokenizer")
    elif stage == "text" and not (state / "text.pt").exists():
        text.train_encoder(state, options.text_steps)
    elif stage == "autoencoder":
        autoencoder.train(state, options.autoencoder_minutes)
    elif stage == "latents":
        latents.encode(state, part=part, parts=parts)
    elif stage == "unet":
        unet.train(state, options.unet_minutes, options.helpers)
    elif stage == "export":
        export.export(state, options.export_to or state / "export")


if __name__ == "__main__":
    main()
