"""What `manyheads train FILE ...` reaches without settings, on public data, alone and together.

    python benchmarks/defaults.py snips wnut17 banking77+wnut17 --data DIR --seeds 1 2 3

Sets that are joined by + are files of one run, and one model learns the tasks of both. The best
epoch is chosen on validation data: each set's own, and of banking77, which has none, 1,500 of its
training sentences. The test data of each set are scored once, by PyTorch and by the int8 graph. A
finished run is only scored; an interrupted one is resumed.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accuracy import machine
from few import READERS
from manyheads.api import evaluate, export, train
from manyheads.config import available_cores
from manyheads.evaluation import mean_interval
from manyheads.inference import ONNX_INT8
from manyheads.modeling import keep_freed_memory

HELD_OUT = 1500
"""Validation sentences of a set without its own."""

Record = dict[str, Any]


def stsb(folder: Path, part: str) -> list[Record]:
    """Read pairs of sentences with their similarity, 0 to 5."""
    with (folder / "stsb" / f"{part}.csv").open(newline="", encoding="utf-8") as file:
        return [
            {"text": text, "text2": text2, "score": float(score)}
            for text, text2, score in csv.reader(file)
        ]


SETS: Mapping[str, Callable[[Path, str], list[Record]]] = {**READERS, "stsb": stsb}


def parts(data: Path, name: str) -> dict[str, list[Record]]:
    """Return the records of a set's parts; every seed has the same."""
    read = SETS[name]
    found = {"train": read(data, "train"), "valid": read(data, "dev"), "test": read(data, "test")}
    if not found["valid"]:
        random.Random(0).shuffle(found["train"])
        found["valid"] = found["train"][:HELD_OUT]
        found["train"] = found["train"][HELD_OUT:]
    return found


def run(arguments: argparse.Namespace, names: Sequence[str], seed: int) -> dict[str, float]:
    """Train with one seed, and return the scores on the test data, in per cent."""
    folder = arguments.out / f"{'+'.join(names)}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    sets = {name: parts(arguments.data, name) for name in names}
    for name, records in sets.items():
        for part in ("train", "test"):
            _write(folder / f"{name}-{part}.jsonl", records[part])
    valid = [record for records in sets.values() for record in records["valid"]]
    _write(folder / "valid.jsonl", valid)
    saved, trained = folder / "run", folder / "trained"
    if not trained.exists():  # a best model is also there in the middle of a run
        train(
            [str(folder / f"{name}-train.jsonl") for name in names],
            valid=str(folder / "valid.jsonl"), save_dir=str(saved), seed=seed,
            threads=arguments.threads, keep_checkpoints=1, resume=saved.exists(),
        )  # fmt: skip
        trained.touch()
    if not (saved / "best" / "onnx").exists():
        export(
            saved / "best", formats=["int8"], data=folder / "valid.jsonl",
            threads=arguments.threads,
        )  # fmt: skip
    scores: dict[str, float] = {}
    for backend, computed in (("torch", ""), (ONNX_INT8, ", int8")):
        for name in names:
            found = evaluate(
                saved / "best", folder / f"{name}-test.jsonl", backend=backend,
                threads=arguments.threads,
            ).evaluation  # fmt: skip
            for metrics in found["tasks"].values():
                metric = next(m for m in ("spearman", "per_type", "accuracy") if m in metrics)
                metric = "f1" if metric == "per_type" else metric
                scores[f"{name} {metric}{computed}"] = 100 * metrics[metric]
            if len(found["tasks"]) > 1:
                scores[f"{name} frame{computed}"] = 100 * (found["frame_accuracy"] or 0.0)
    return scores


def _write(path: Path, records: Sequence[Record]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def table(title: str, runs: Sequence[dict[str, float]], seeds: Sequence[int]) -> str:
    """Write a Markdown table: a row for each seed, and the mean with its 95 % interval."""
    names = list(runs[0])
    rows = [f"| {title}, seed | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for seed, scores in zip(seeds, runs, strict=True):
        rows.append(f"| {seed} | {' | '.join(f'{scores[name]:.2f}' for name in names)} |")
    cells = []
    for name in names:
        mean = mean_interval([scores[name] for scores in runs])
        spread = "" if mean.high is None else f" ± {mean.high - mean.mean:.2f}"
        cells.append(f"{mean.mean:.2f}{spread}")
    return "\n".join([*rows, f"| mean | {' | '.join(cells)} |"])


def main(argv: Sequence[str] | None = None) -> None:
    """Run all seeds of all sets, and print a table of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sets", nargs="+", help=f"of {', '.join(SETS)}, or several joined by +")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args(argv)
    if unknown := [s for joined in arguments.sets for s in joined.split("+") if s not in SETS]:
        parser.error(f"there is no set {unknown[0]}: expected one of {', '.join(SETS)}")
    keep_freed_memory()
    print(machine())
    for joined in arguments.sets:
        runs = [run(arguments, joined.split("+"), seed) for seed in arguments.seeds]
        print(f"\n{table(joined, runs, arguments.seeds)}", flush=True)


if __name__ == "__main__":
    main()
