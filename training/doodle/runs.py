"""Helpers of all stages of the training: device, pauses, checkpoints, averages, learning rates."""

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

PAUSE_FILE = os.environ.get("DOODLE_PAUSE_FILE", "")


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast() -> torch.autocast:
    """bfloat16 for matrix products: twice as fast on CPUs with AVX512-BF16 and on GPUs."""
    return torch.autocast(device().type, torch.bfloat16)


def say(text: str) -> None:
    """Prints `text` with the time of day."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def save_atomically(value: Any, path: Path) -> None:
    """Saves `value`; a run that is killed meanwhile leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    torch.save(value, draft)
    draft.replace(path)


def wait_while_paused() -> float:
    """Sleeps as long as the file named by DOODLE_PAUSE_FILE exists; the seconds slept."""
    start = time.monotonic()
    while PAUSE_FILE and Path(PAUSE_FILE).exists():
        time.sleep(2)
    return time.monotonic() - start


class Average:
    """The moving average of a module's parameters, which is exported and sampled from."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Moves the average towards `module`."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for key, value in module.state_dict().items():
            if value.is_floating_point():
                self.values[key].lerp_(value, 1 - keep)


class Run:
    """A resumable training: a module, its optimizer and average, and the time it has had.

    The learning rate follows the share of the time budget that is used up, not a number of
    steps: a machine that others use as well gives an unknown number of steps.
    """

    def __init__(  # noqa: PLR0913 - what a training run consists of
        self, module: nn.Module, path: Path, *, rate: float, minutes: float, decay: float = 0.999,
        weight_decay: float = 0.0, warmup: int = 300,
    ) -> None:  # fmt: skip
        self.module, self.path, self.rate, self.budget = module, path, rate, minutes * 60
        self.warmup = warmup
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
        )
        self.average = Average(module, decay)
        self.step, self.seconds = 0, 0.0
        self.extra: dict[str, Any] = {}
        if path.exists():
            self._load()

    def _load(self) -> None:
        saved = torch.load(self.path, map_location=device(), weights_only=True)
        self.module.load_state_dict(saved["module"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average.values = saved["average"]
        self.step, self.seconds, self.extra = saved["step"], saved["seconds"], saved["extra"]
        say(f"resumed {self.path.name} at step {self.step}, {self.seconds / 60:.1f} min")

    def save(self) -> None:
        """Writes the checkpoint."""
        save_atomically({
            "module": self.module.state_dict(), "optimizer": self.optimizer.state_dict(),
            "average": self.average.values, "step": self.step, "seconds": self.seconds,
            "extra": self.extra,
        }, self.path)  # fmt: skip

    def share(self) -> None:
        """Moves parameters and optimizer to shared memory, for helpers that train along.

        They take steps without waiting for each other (Hogwild, arXiv:1106.5730). On a machine
        with other things to do that wastes far less than threads, which wait at every product.
        """
        self.module.share_memory()
        if not self.optimizer.state:
            for parameter in self.module.parameters():
                parameter.grad = torch.zeros_like(parameter)
            for group in self.optimizer.param_groups:
                group["lr"] = 0.0
            self.optimizer.step()
        for state in self.optimizer.state.values():
            for value in state.values():
                value.share_memory_()
        self.optimizer.zero_grad(set_to_none=True)

    def learning_rate(self) -> float:
        """Warm-up, then a cosine over the budget of time."""
        used = min(1.0, self.seconds / self.budget)
        return (
            self.rate
            * min(1.0, (self.step + 1) / self.warmup)
            * (0.02 + 0.98 * (1 + math.cos(math.pi * used)) / 2)
        )

    def steps(self) -> Iterator[int]:
        """Counts steps until the budget is used up, saving every three minutes."""
        saved = time.monotonic()
        while self.seconds < self.budget:
            wait_while_paused()
            start = time.monotonic()
            yield self.step
            self.step += 1
            self.seconds += time.monotonic() - start
            if time.monotonic() - saved > 180:
                self.save()
                saved = time.monotonic()
        self.save()

    def learn(self, loss: torch.Tensor) -> None:
        """One step of the optimizer down the gradient of `loss`."""
        descend(self.module, self.optimizer, loss, self.learning_rate())
        self.average.update(self.module, self.step)


def descend(module: nn.Module, optimizer: Any, loss: torch.Tensor, rate: float) -> None:
    """One step of the optimizer, its gradient clipped."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimizer.step()


class Meter:
    """Prints the mean of the figures it is fed, and the speed, every `every` steps."""

    def __init__(self, run: Run, every: int) -> None:
        self.run, self.every, self.count = run, every, 0
        self.sums: dict[str, float] = {}
        self.start = time.monotonic()

    def feed(self, **values: float) -> None:
        """Takes the figures of one step."""
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.count += 1
        if self.count >= self.every:
            shown = "  ".join(f"{k} {v / self.count:.4f}" for k, v in self.sums.items())
            pace = (time.monotonic() - self.start) / self.count
            say(
                f"step {self.run.step}  {self.run.seconds / 60:.1f} min  {shown}  {pace:.2f} s/step"
            )
            self.sums, self.count, self.start = {}, 0, time.monotonic()


def every(seconds: float) -> Callable[[], bool]:
    """A function that returns True once every `seconds`."""
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        if time.monotonic() - last < seconds:
            return False
        last = time.monotonic()
        return True

    return due
