"""Accuracy on public data: one run per seed, chosen on validation data, scored on test data.

    python benchmarks/accuracy.py snips --data DIR
    python benchmarks/accuracy.py banking77_wnut17 --data DIR

DIR holds the data set's folders (`snips/train`, `snips/dev` and `snips/test`; or `banking77/` and
`wnut17/`). An interrupted run is resumed; a finished one is only scored.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import manyheads
from manyheads.api import evaluate, train
from manyheads.config import Config, available_cores, load_config
from manyheads.display import TrainingProgress
from manyheads.evaluation import mean_interval
from manyheads.modeling import keep_freed_memory

CONFIGS = Path(__file__).parent.parent / "src"

# Paths below DIR: training data, validation data, test data.
FILES: Mapping[str, Mapping[str, str]] = {
    "snips": {"train_file": "snips/train", "valid_file": "snips/dev"},
    "banking77_wnut17": {
        "tasks.intent.train_file": "banking77/train.csv",
        "tasks.entities.train_file": "wnut17/wnut17train.conll",
        "tasks.entities.valid_file": "wnut17/emerging.dev.conll",
    },
}
TESTS: Mapping[str, Mapping[str, str]] = {
    "snips": {"": "snips/test"},
    "banking77_wnut17": {
        "intent": "banking77/test.csv",
        "entities": "wnut17/emerging.test.annotated",
    },
}


def main() -> None:
    """Run one data set's seeds and print the mean of each metric."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=FILES)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"there is no folder {arguments.data}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs = [run_seed(arguments, seed) for seed in arguments.seeds]
    names = runs[0]["scores"]
    summary = {
        "name": arguments.name,
        "machine": machine(),
        "manyheads": manyheads.__version__,
        "seeds": arguments.seeds,
        "mean": {name: mean_interval([r["scores"][name] for r in runs]).mean for name in names},
        "runs": runs,
    }
    path = arguments.out / f"{arguments.name}.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")
    print(table(summary))
    print(f"\nSaved {path}")


def run_seed(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train with one seed and score the best model on the test data."""
    save_dir = arguments.out / f"{arguments.name}-seed{seed}"
    overrides = {key: str(arguments.data / path) for key, path in FILES[arguments.name].items()}
    if arguments.name == "banking77_wnut17":
        whole = Path(overrides["tasks.intent.train_file"])
        overrides |= hold_out(whole, arguments.out, "tasks.intent")
    overrides |= dict(item.split("=", 1) for item in arguments.set)
    overrides |= {"seed": str(seed), "save_dir": str(save_dir), "keep_checkpoints": "1"}
    config = load_config(CONFIGS / f"config_{arguments.name}.yaml", overrides)
    train_one(config, resume=save_dir.exists())
    lines = (save_dir / "metrics.jsonl").read_text().splitlines()
    epochs = [line for line in map(json.loads, lines) if line["event"] == "epoch"]
    scores = test_scores(save_dir / "best", arguments.name, arguments.data, list(config.tasks))
    seconds = sum(json.loads(line)["seconds"] for line in lines)
    best = max(epochs, key=lambda line: line["score"])
    return {
        "seed": seed,
        "minutes": seconds / 60,
        "best_epoch": best["epoch"],
        "validation": best["score"],
        "scores": scores,
    }


def test_scores(model: Path, name: str, data: Path, tasks: Sequence[str]) -> dict[str, float]:
    """Score a model on a data set's test data.

    Args:
        model: its folder.
        name: the data set's.
        data: the folder of the data sets.
        tasks: those that the model has.

    Returns:
        Accuracy and F1 as `TASK METRIC`; for several tasks of one sentence also `frame accuracy`.
    """
    scores: dict[str, float] = {}
    for task, file in TESTS[name].items():
        if task and task not in tasks:
            continue
        report = evaluate(model, data / file, tasks=[task] if task else None)
        for scored, metrics in report.evaluation["tasks"].items():
            for metric in ("accuracy", "f1"):
                if metric in metrics:
                    scores[f"{scored} {metric}"] = metrics[metric]
        frames = report.evaluation["frame_accuracy"]
        if not task and len(tasks) > 1 and frames is not None:
            scores["frame accuracy"] = frames
    return scores


def hold_out(path: Path, folder: Path, task: str) -> dict[str, str]:
    """Split a CSV file without a validation file: every tenth record is for validation."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    files = {}
    for key, chosen in (
        ("train_file", [row for i, row in enumerate(rows) if i % 10]),
        ("valid_file", rows[::10]),
    ):
        part = folder / f"{path.parent.name}-{key.removesuffix('_file')}.csv"
        with part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *chosen])
        files[f"{task}.{key}"] = str(part)
    return files


def train_one(config: Config, *, resume: bool) -> None:
    """Train with a progress bar."""
    with TrainingProgress() as progress:
        keep_freed_memory()
        train(config, resume=resume, reporter=progress)


def machine() -> str:
    """Return the kind of machine, without its name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(
            line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line
        )
        named = {key.strip(): value.strip() for key, value in fields.items()}
        model = named.get("model name", model)
    return f"{model}, {available_cores()} cores"


def table(summary: Mapping[str, Any]) -> str:
    """Format a summary as a Markdown table: one row per seed, and the mean."""
    names = list(summary["mean"])
    rows = [["seed", *names, "best epoch", "minutes"]]
    rows += [
        [
            str(run["seed"]),
            *(f"{100 * run['scores'][name]:.2f}" for name in names),
            str(run["best_epoch"]),
            f"{run['minutes']:.1f}",
        ]
        for run in summary["runs"]
    ]
    minutes = [run["minutes"] for run in summary["runs"]]
    means = [f"{100 * summary['mean'][name]:.2f}" for name in names]
    rows.append(["mean", *means, "", f"{sum(minutes) / len(minutes):.1f}"])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, f"|{'---|' * len(rows[0])}")
    return f"{summary['machine']}\n\n" + "\n".join(lines)


if __name__ == "__main__":
    main()
