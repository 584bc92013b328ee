"""`imagine` with the fake model: `python fake_imagine.py run ...`.

FAKE_STEP is the seconds of one evaluation of the fake model; after FAKE_STALL evaluations, one
takes a minute.
"""

from __future__ import annotations

import os
import sys
import time

from imagine_core.cli import Program, build_cli, main
from imagine_core.testing import FakePlugin, build_test_plugins


def program(fake: FakePlugin | None = None) -> Program:
    """The program over the installed plugins and the fake one."""
    return build_cli(lambda: build_test_plugins(fake))


if __name__ == "__main__":
    seconds = float(os.environ.get("FAKE_STEP", "0"))
    stall = int(os.environ.get("FAKE_STALL", "-1"))
    slow = FakePlugin()
    slow.loader.before = lambda rows: time.sleep(
        600 if len(slow.loader.models[0].forwards) == stall else seconds
    )
    sys.exit(main(program=program(slow)))
