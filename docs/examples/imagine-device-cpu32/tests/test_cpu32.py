"""The device against the rules of all, and its own."""

import imagine_device_cpu32
import torch

from imagine_core.testing import check_device


def test_cpu32_does_what_devices_do():
    """The suite that every device passes."""
    check_device(imagine_device_cpu32, "cpu32")


def test_it_computes_in_float32_whatever_the_processor_can():
    """That is what it is for."""
    assert imagine_device_cpu32.Cpu32().dtype() == torch.float32
