"""``python -m micfast``: the command line."""

import sys

from micfast.cli import main

if __name__ == "__main__":
    sys.exit(main())
