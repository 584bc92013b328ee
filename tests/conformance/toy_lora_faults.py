"""Loaders of the toy format of LoRAs that each have one fault."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from conformance.toy_loras import LAYERS, WORD, Full, Product, ToyLora, ToyLoras
from imagine_core import ModelInfo
from imagine_core.errors import UnusableModel
from imagine_core.parts import Change, FittedLora, Layers, LowRank, Magnitude

if TYPE_CHECKING:
    import torch

# ------------------------------------------------------------------------- faults of recognising


class SaysModel(ToyLoras):
    said: ClassVar = {"kind": "model"}


class FitsText(ToyLoras):
    said: ClassVar = {"fits": "toy"}


class FitsAnother(ToyLoras):
    said: ClassVar = {"fits": ("sd1",)}


class Taking(ToyLoras):
    said: ClassVar = {"takes": ("lora",)}


class Sets(ToyLoras):
    said: ClassVar = {"details": {"ranks": {4, 8}}}


class NotANumber(ToyLoras):
    said: ClassVar = {"details": {"scale": float("nan")}}


class OneTrigger(ToyLoras):
    said: ClassVar = {"details": {"triggers": "boat"}}


# ----------------------------------------------------------------------------- faults of fitting


class LongHash(ToyLoras):
    class lora(ToyLora):  # noqa: N801
        hash = "0123456789abcdef"


class FitsNothing(ToyLoras):
    class lora(ToyLora):  # noqa: N801
        def fit(self, layers: Layers) -> FittedLora:
            return FittedLora(changes={})


class FitsDict(ToyLoras):
    class lora(ToyLora):  # noqa: N801
        def fit(self, layers: Layers) -> Any:
            return self.changes


class Stray(ToyLoras):
    """Changes a layer under the name of its own file."""

    class lora(ToyLora):  # noqa: N801
        def fit(self, layers: Layers) -> FittedLora:
            found = super().fit(layers)
            return replace(found, changes={**found.changes, "lora_unet_up": Change()})


class Empty(ToyLoras):
    class lora(ToyLora):  # noqa: N801
        @cached_property
        def changes(self) -> dict[str, Change]:
            return {**super().changes, "unet.other": Change()}


class Changes(ToyLora):
    """Changes `unet.out` in another way."""

    def other(self, change: Change) -> Change:
        raise NotImplementedError

    @cached_property
    def changes(self) -> dict[str, Change]:
        made = super().changes
        return {**made, "unet.out": self.other(made["unet.out"])}


class Flat(ToyLoras):
    """A kernel as a matrix."""

    class lora(ToyLora):  # noqa: N801
        class product(Product):  # noqa: N801
            def dense(self, dtype: torch.dtype) -> torch.Tensor:
                return super().dense(dtype).flatten(1)


class FlatDown(ToyLoras):
    class lora(ToyLora):  # noqa: N801
        class product(Product):  # noqa: N801
            def low_rank(self, dtype: torch.dtype) -> LowRank | None:
                return LowRank(self.down.flatten(1).to(dtype), self.up.to(dtype))


class Column(ToyLoras):
    """A magnitude in PyTorch's shape for `dora_scale`."""

    class lora(Changes):  # noqa: N801
        def other(self, change: Change) -> Change:
            assert change.magnitude is not None
            return replace(change, magnitude=Magnitude(change.magnitude.values[:, None], "out"))


class Rows(ToyLoras):
    """A magnitude along the wrong axis."""

    class lora(Changes):  # noqa: N801
        def other(self, change: Change) -> Change:
            assert change.magnitude is not None
            return replace(change, magnitude=Magnitude(change.magnitude.values, "in"))


class Narrow(ToyLoras):
    class lora(Changes):  # noqa: N801
        def other(self, change: Change) -> Change:
            assert change.bias is not None
            return replace(change, bias=change.bias[:6])


class OneVector(ToyLoras):
    """A word whose only vector has lost a dimension."""

    class lora(ToyLora):  # noqa: N801
        def fit(self, layers: Layers) -> FittedLora:
            assert self.numbers is not None
            words = {"boat": {"text_encoder": self.numbers[-WORD:]}}
            return replace(super().fit(layers), words=words)


class Unscaled(ToyLoras):
    """Has its scale in one of both alone."""

    class lora(ToyLora):  # noqa: N801
        class product(Product):  # noqa: N801
            def dense(self, dtype: torch.dtype) -> torch.Tensor:
                return super().dense(dtype) * 0.5


class Single(ToyLoras):
    """Stays in float32."""

    class lora(ToyLora):  # noqa: N801
        class full(Full):  # noqa: N801
            def dense(self, dtype: torch.dtype) -> torch.Tensor:
                return self.difference


class Infinite(ToyLoras):
    class lora(Changes):  # noqa: N801
        def other(self, change: Change) -> Change:
            assert change.bias is not None
            return replace(change, bias=change.bias / 0)


class Whole(ToyLoras):
    class lora(Changes):  # noqa: N801
        def other(self, change: Change) -> Change:
            assert change.bias is not None
            return replace(change, bias=change.bias.int())


class Stays(ToyLoras):
    class lora(ToyLora):  # noqa: N801
        class full(Full):  # noqa: N801
            def to(self, device: torch.device) -> Full:
                return self


class Moves(ToyLoras):
    """Goes to the device itself, as modules do."""

    class lora(ToyLora):  # noqa: N801
        class full(Full):  # noqa: N801
            def to(self, device: torch.device) -> Full:
                self.difference = self.difference.to(device)
                return self


class InPlace(ToyLoras):
    """Multiplies the tensors that it has."""

    class lora(ToyLora):  # noqa: N801
        class full(Full):  # noqa: N801
            def dense(self, dtype: torch.dtype) -> torch.Tensor:
                return self.difference.mul_(0.5).to(dtype)


class Remembers(ToyLoras):
    """Changes what every model has of it when it is fitted to one."""

    class lora(ToyLora):  # noqa: N801
        def fit(self, layers: Layers) -> FittedLora:
            found = super().fit(layers)
            if "unet.table" not in layers.shapes:
                table = self.changes["unet.table"].updates[0]
                assert isinstance(table, Full)
                table.difference = table.difference * 2
            return found


class Equal(ToyLoras):
    """Compared by its name."""

    class lora(ToyLora):  # noqa: N801
        def __eq__(self, other: object) -> bool:
            return isinstance(other, ToyLora) and self.name == other.name

        def __hash__(self) -> int:
            return hash(self.name)


class Silent(ToyLoras):
    class lora(ToyLora):  # noqa: N801
        def fit(self, layers: Layers) -> FittedLora:
            return replace(super().fit(layers), warnings=())


class AllOrNothing(ToyLoras):
    class lora(ToyLora):  # noqa: N801
        def fit(self, layers: Layers) -> FittedLora:
            found = super().fit(layers)
            if found.warnings:
                raise UnusableModel(self.name, "part of it does not fit this model")
            return found


class Brittle(ToyLoras):
    class lora(ToyLora):  # noqa: N801
        def fit(self, layers: Layers) -> FittedLora:
            assert layers.shapes["unet.norm"]
            return super().fit(layers)


class Invents(ToyLoras):
    """Names layers without a look whether there are any."""

    class lora(ToyLora):  # noqa: N801
        def fit(self, layers: Layers) -> FittedLora:
            found = super().fit(layers)
            return replace(found, changes=self.changes)


class ByName(ToyLoras):
    """Looks at names and not at shapes."""

    class lora(ToyLora):  # noqa: N801
        def fit(self, layers: Layers) -> FittedLora:
            named = {n: LAYERS.shapes[n] for n in layers.shapes if n in LAYERS.shapes}
            return super().fit(replace(layers, shapes=named))


class Contented(ToyLoras):
    """Finds nothing, and does not mind."""

    class lora(ToyLora):  # noqa: N801
        def fit(self, layers: Layers) -> FittedLora:
            try:
                return super().fit(layers)
            except UnusableModel:
                return FittedLora(changes={}, warnings=("nothing of it fits this model",))


class Curt(ToyLoras):
    class lora(ToyLora):  # noqa: N801
        def fit(self, layers: Layers) -> FittedLora:
            try:
                return super().fit(layers)
            except UnusableModel:
                raise UnusableModel(self.name, "misfit") from None


class Spreads(ToyLoras):
    """Keeps the products beside their factors, for every use."""

    class lora(ToyLora):  # noqa: N801
        def __init__(self, info: ModelInfo) -> None:
            import torch

            super().__init__(info)
            self.whole = [torch.zeros(100_000)]

        def close(self) -> None:
            super().close()
            self.whole.clear()


class Keeps(ToyLoras):
    class lora(ToyLora):  # noqa: N801
        def close(self) -> None:
            pass


class ClosesOnce(ToyLoras):
    class lora(ToyLora):  # noqa: N801
        def close(self) -> None:
            del self.numbers
            self.__dict__.pop("changes", None)


class Loud(ToyLoras):
    name = "Loud Toys"
