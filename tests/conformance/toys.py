"""A model format for tests of check_loader, and loaders of it that each have one fault.

A file is "TOY1", eight bytes with the length of the rest, and the rest. Each loader is its own
plugin, in a module, so that a fresh process can import it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from imagine_core import Conditioning, Device, ModelInfo, hookimpl
from imagine_core.errors import UnusableModel
from imagine_core.testing import FakeModel

MAGIC = b"TOY1"


def write(path: Path, size: int = 2**22) -> Path:
    """A toy model, of four megabytes."""
    path.write_bytes(MAGIC + size.to_bytes(8, "little") + bytes(size))
    return path


class ToyModel(FakeModel):
    """The fake model, with weights that it could do without."""

    def __init__(self) -> None:
        import torch

        super().__init__()
        self.parts: dict[str, Any] = {"net": [torch.nn.Linear(3, 3)]}

    def close(self) -> None:
        self.parts.clear()


class Toys:
    """The loader without a fault."""

    name = "toys"
    model: type[ToyModel] = ToyModel
    fractions: tuple[float, ...] = (0.0, 0.5, 1.0)

    @hookimpl
    def register_model_loaders(self, register: Callable[[object], None]) -> None:
        register(self)

    def recognise(self, path: Path) -> ModelInfo | None:
        if path.suffix != ".toy" or not path.is_file():
            return None
        size = path.stat().st_size
        info = ModelInfo(name=path.stem, path=path, loader=self.name, family="toy", size=size)
        return replace(info, problem=self.problem(path, size))

    def problem(self, path: Path, size: int) -> str | None:
        with path.open("rb") as file:
            head = file.read(12)
        if not head.startswith(MAGIC):
            return "this is no toy, whatever its name says; delete it"
        if 12 + int.from_bytes(head[4:], "little") != size:
            return "the file is cut off; download it again"
        return None

    def load(
        self,
        info: ModelInfo,
        *,
        device: Device,
        full_precision: bool,
        progress: Callable[[float], object] = id,
    ) -> ToyModel:
        if info.problem is not None:
            raise UnusableModel(info.name, info.problem)
        for fraction in self.fractions:
            progress(fraction)
        return self.model()


# ------------------------------------------------------------------------- faults of recognising


class Loud(Toys):
    name = "Loud Toys"


class Taken(Toys):
    name = "checkpoint"


class Blind(Toys):
    def recognise(self, path: Path) -> ModelInfo | None:
        return None


class Says(Toys):
    """Says something else of the model than is true."""

    said: ClassVar[dict[str, Any]]

    def __init_subclass__(cls, **said: Any) -> None:
        super().__init_subclass__()
        cls.said = said

    def recognise(self, path: Path) -> ModelInfo | None:
        info = super().recognise(path)
        return info if info is None or info.problem else replace(info, **self.said)


class SaysPath(Says, path=Path("/elsewhere")):
    pass


class SaysLoader(Says, loader="another"):
    pass


class SaysName(Says, name="My model"):
    pass


class SaysFamily(Says, family=""):
    pass


class SaysSize(Says, size=0):
    pass


class SaysLayers(Says, clip_layers=0):
    pass


class SaysSides(Says, recommended_size=(500, 500)):
    pass


class SaysNoise(Says, noise="flow"):
    pass


class SaysMetadata(Says, metadata={"title": 7}):
    pass


class SaysProblem(Says, problem="not today, come back tomorrow"):
    pass


class Fickle(Toys):
    def recognise(self, path: Path) -> ModelInfo | None:
        info = super().recognise(path)
        return info and replace(info, metadata={"at": str(time.perf_counter())})


class Slow(Toys):
    def recognise(self, path: Path) -> ModelInfo | None:
        time.sleep(0.05)
        return super().recognise(path)


class ReadsAll(Toys):
    def problem(self, path: Path, size: int) -> str | None:
        path.read_bytes()
        return super().problem(path, size)


class Heavy(Toys):
    def problem(self, path: Path, size: int) -> str | None:
        import torch

        assert torch.__version__
        return super().problem(path, size)


class Greedy(Toys):
    def recognise(self, path: Path) -> ModelInfo | None:
        info = super().recognise(path)
        if info is not None or not path.exists():
            return info
        return ModelInfo(name=path.stem, path=path, loader=self.name, family="toy", size=1)


class Trusting(Toys):
    """Takes for granted that what was listed is still there."""

    def recognise(self, path: Path) -> ModelInfo | None:
        if path.suffix == ".toy":
            path.stat()
        return super().recognise(path)


class BySuffix(Toys):
    def problem(self, path: Path, size: int) -> str | None:
        return None


class Unmeasured(Toys):
    def problem(self, path: Path, size: int) -> str | None:
        said = super().problem(path, size)
        return None if said and "cut off" in said else said


class Silent(Toys):
    """Does not list what is damaged."""

    def recognise(self, path: Path) -> ModelInfo | None:
        info = super().recognise(path)
        return None if info is None or info.problem else info


class Curt(Toys):
    def problem(self, path: Path, size: int) -> str | None:
        return "bad file" if super().problem(path, size) else None


class Indiscreet(Toys):
    def problem(self, path: Path, size: int) -> str | None:
        return f"{path} is not what it should be" if super().problem(path, size) else None


# ------------------------------------------------------------------------------- faults of loading


class Percent(Toys):
    fractions = (0.0, 50.0, 100.0)


class Backwards(Toys):
    fractions = (0.0, 0.9, 0.5)


class NoCell(Toys):
    class model(ToyModel):  # noqa: N801
        downsampling = 0


class LongHash(Toys):
    class model(ToyModel):  # noqa: N801
        model_hash = "sha256:0123"


class Hollow(Toys):
    class model(ToyModel):  # noqa: N801
        def __init__(self) -> None:
            import torch

            super().__init__()
            self.parts["net"].append(torch.nn.Linear(3, 3, device="meta"))


class NotNumbers(Toys):
    class model(ToyModel):  # noqa: N801
        def __init__(self) -> None:
            import torch

            super().__init__()
            self.parts["more"] = torch.nn.Linear(3, 3)
            self.parts["more"].bias.data[0] = float("nan")


class OneForAll(Toys):
    class model(ToyModel):  # noqa: N801
        def encode_prompt(self, prompt: str, **options: Any) -> Conditioning:
            return super().encode_prompt("always", **options)


class TwoRows(Toys):
    class model(ToyModel):  # noqa: N801
        def encode_prompt(self, prompt: str, **options: Any) -> Conditioning:
            return Conditioning(
                context=super().encode_prompt(prompt, **options).context.repeat(2, 1, 1)
            )


class Sociable(Toys):
    """Rows see each other."""

    class model(ToyModel):  # noqa: N801
        def predict(self, latents: Any, timesteps: Any, conditioning: Any) -> Any:
            found = super().predict(latents, timesteps, conditioning)
            return found - found.mean(dim=0, keepdim=True) / 2


class Double(Toys):
    class model(ToyModel):  # noqa: N801
        def predict(self, latents: Any, timesteps: Any, conditioning: Any) -> Any:
            return super().predict(latents, timesteps, conditioning).double()


class Grey(Toys):
    class model(ToyModel):  # noqa: N801
        def decode(self, latent: Any) -> Any:
            return super().decode(latent).convert("L")


class LargePreview(Toys):
    class model(ToyModel):  # noqa: N801
        def decode(self, latent: Any) -> Any:
            return FakeModel().decode(latent)

        def preview(self, latent: Any) -> Any:
            return self.decode(latent)


class Forgetful(Toys):
    """Encodes with chance from elsewhere than the generator."""

    class model(ToyModel):  # noqa: N801
        def encode_image(self, image: Any, generator: Any) -> Any:
            import torch

            latent = super().encode_image(image, generator)
            return latent + torch.rand_like(latent)


class Keeps(Toys):
    class model(ToyModel):  # noqa: N801
        def close(self) -> None:
            pass
