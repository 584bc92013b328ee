"""`imagine`, and `python -m imagine_core`: starts the program, with Ctrl-C handled at once."""

import sys


def main() -> int:
    """Run the program and return its exit code; see `imagine_core.cli.main`."""
    try:
        from imagine_core import interrupts

        interrupts.end_at_once()
        from imagine_core.cli import main as run

        try:
            return run()
        finally:
            interrupts.end_at_once()
    except KeyboardInterrupt:  # before our first line, or after the last
        return 130


if __name__ == "__main__":
    sys.exit(main())
