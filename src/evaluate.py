"""Evaluate from a checkout: `python src/evaluate.py ...` is `manyheads evaluate ...`."""

import sys

from manyheads.cli import main

if __name__ == "__main__":
    sys.exit(main(command="evaluate"))
