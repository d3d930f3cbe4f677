"""Train from a checkout: `python src/train.py ...` is `manyheads train ...`."""

import sys
from pathlib import Path

from manyheads.cli import main

if __name__ == "__main__":
    sys.exit(main(command="train", default_config=Path(__file__).parent / "config.yaml"))
