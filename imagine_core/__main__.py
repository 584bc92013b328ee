"""`python -m imagine_core` is `imagine`."""

import sys

from imagine_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
