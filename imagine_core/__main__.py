"""`python -m imagine_core` is `imagine`."""

from imagine_core.cli import main

if __name__ == "__main__":
    main()
