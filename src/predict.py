"""Predict from a checkout: `python src/predict.py ...` is `manyheads predict ...`."""

import sys

from manyheads.cli import main

if __name__ == "__main__":
    sys.exit(main(command="predict"))
