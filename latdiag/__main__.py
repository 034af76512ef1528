"""``python -m latdiag`` is ``latdiag``."""

from latdiag.cli import main

if __name__ == "__main__":
    main()
