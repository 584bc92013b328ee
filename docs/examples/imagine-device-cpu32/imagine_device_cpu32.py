"""The CPU in float32 wherever it is: one seed, one picture, on old and new processors alike."""

from imagine_core import Device, hookimpl


class Cpu32(Device):
    """Imagine's own "cpu" computes in bfloat16 where the processor can, which looks different."""

    name = "cpu32"
    label = "CPU in float32"
    priority = -10  # `-d auto` does not take it: it is for those who ask for it by name

    def unavailable(self):
        """Never: there is always a CPU."""
        return

    def torch_device(self):
        """What torch calls it."""
        return "cpu"

    def dtype(self):
        """What models compute in."""
        import torch  # here, so that `imagine --help` need not load it

        return torch.float32


@hookimpl
def register_devices(register):
    """Register "cpu32"."""
    register(Cpu32())
