"""What ten new classes cost the old ones: CLINC150 with 140 classes, and 10 added to it.

    python benchmarks/new_labels.py --data DIR/clinc150 [--seeds N ...] [--draws N] [--freeze]

For each seed, a model is trained on 140 classes that the seed draws. Then 10 sentences of each of
the other 10 are drawn, `draws` times, and `add_label` adds these classes, with the validation
sentences of the old ones kept. The test sentences of both are scored. The trained models stay in
the folder `work`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import manyheads

NEW, EXAMPLES = 10, 10
TASK = "classification"


def split(data: Path, seed: int) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Return the records of the old classes and of the new ones, by part."""
    parts = json.loads((data / "data_full.json").read_text(encoding="utf-8"))
    names = sorted({label for _, label in parts["train"]})
    new = set(random.Random(seed).sample(names, NEW))
    sides: list[dict[str, list[Any]]] = [{}, {}]
    for part in ("train", "val", "test"):
        for is_new, side in enumerate(sides):
            side[part] = [
                {"text": text, "label": label}
                for text, label in parts[part]
                if (label in new) == is_new
            ]
    return sides[0], sides[1]


def drawn(records: Sequence[Any], seed: int) -> list[Any]:
    """Draw the examples of each class."""
    draw = random.Random(seed)
    classes = sorted({record["label"] for record in records})
    return [
        one
        for name in classes
        for one in draw.sample([r for r in records if r["label"] == name], EXAMPLES)
    ]


def accuracy(model: manyheads.Model, records: Sequence[Any]) -> float:
    """Return the accuracy in percent."""
    share: float = model.evaluate(records).evaluation["tasks"][TASK]["accuracy"]
    return 100 * share


def measured(args: argparse.Namespace, seed: int) -> list[tuple[float, ...]]:
    """Train the model of a seed where it is missing, and return a row for each draw."""
    old, new = split(args.data, seed)
    base = args.work / f"{'frozen' if args.freeze else 'base'}{seed}"
    if not (base / "best").exists():
        manyheads.train(
            old["train"], valid=old["val"], save_dir=str(base), max_length=64, batch_size=32,
            learning_rate=1.5e-4, num_epochs=args.epochs, threads=args.threads, overwrite=True,
            freeze="encoder" if args.freeze else "none",
        )  # fmt: skip
    before = accuracy(manyheads.load(base, threads=args.threads), old["test"])
    rows: list[tuple[float, ...]] = []
    for draw in range(args.draws):
        start = time.perf_counter()
        model = manyheads.add_label(
            base, TASK, train_file=drawn(new["train"], draw), kept=old["val"],
            save_dir=args.work / f"extended{seed}-{draw}", overwrite=True, threads=args.threads,
            progress=False,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        after, found = accuracy(model, old["test"]), accuracy(model, new["test"])
        rows.append((before, after, after - before, found, seconds))
        show(f"{seed}, {draw}", rows[-1])
    return rows


def show(name: str, row: Sequence[float]) -> None:
    """Print a line of the table."""
    print("| {} | {:.2f} | {:.2f} | {:+.2f} | {:.1f} | {:.0f} |".format(name, *row), flush=True)


def main() -> None:
    """Print a line for each choice of the new classes and draw of examples, and the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("new-labels"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--freeze", action="store_true", help="train the head alone")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    print("| seed, draw | old before | old after | difference | new | seconds |")
    means = []
    for seed in args.seeds:
        rows = measured(args, seed)
        means.append([fmean(column) for column in zip(*rows, strict=True)])
        show(f"{seed}, mean", means[-1])
    show("mean", [fmean(column) for column in zip(*means, strict=True)])


if __name__ == "__main__":
    main()
