"""Train a model from a checkout: `python src/train.py ...` is `manyheads train ...`."""

import sys

from manyheads.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
