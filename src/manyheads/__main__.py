"""Entry point of `python -m manyheads`."""

from __future__ import annotations

import sys

from manyheads.cli import main

if __name__ == "__main__":
    sys.exit(main())
