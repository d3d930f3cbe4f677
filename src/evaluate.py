"""Evaluate a model from a checkout: `python src/evaluate.py ...` is `manyheads evaluate ...`."""

import sys

from manyheads.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
