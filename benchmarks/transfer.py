"""What to freeze, and at what cost: every transfer setting on SNIPS, side by side.

    python benchmarks/transfer.py --data DIR [--seeds N ...] [--only NAME ...] [--records N]

DIR holds `snips` (train, dev, test) and `stsb` (train.csv, test.csv). Each setting trains the
intent and slot heads of `src/config_snips.yaml`, chooses the epoch on the dev data, and scores the
test data once. The embedding is scored on the test pairs of the STS benchmark, which are not
trained on. Writes transfer.json, transfer.md and transfer.png. Finished parts stay in
`transfer-parts` and are not repeated. Several processes on one folder share the work: start all but
the last, which writes the report, with `--parts`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from accuracy import CONFIGS, machine, test_scores
from manyheads.api import load
from manyheads.config import Config, load_config
from manyheads.display import TrainingProgress
from manyheads.inference.backends import pytorch
from manyheads.modeling import keep_freed_memory
from manyheads.storage import METRICS_FILE
from manyheads.tasks.metrics import spearman
from manyheads.training import config_alone, train
from shared_parts import do_part, spread, study_parser
from snips import INTENT, SLOTS, first_records

CONFIG = CONFIGS / "config_snips.yaml"

METRICS: Mapping[str, str] = {
    "intent accuracy": "intent accuracy",
    "slots f1": "slot F1",
    "frame accuracy": "frame accuracy",
    "sts": "STS-B after",
}

Settings = Mapping[str, str]

# Stronger heads for an encoder that does not change.
STRONG: Settings = {
    "tasks.intent.reads": "mix",
    "tasks.intent.pooling": "[sentence, attention, max]",
    "tasks.intent.hidden": "256",
    "tasks.slots.reads": "mix",
    "tasks.slots.neck_size": "256",
    "tasks.slots.neck_layers": "2",
}
LINEAR: Settings = {"tasks.slots.decoder": "linear", "tasks.slots.neck": "none"}
HELD: Settings = {"keep_embeddings.weight": "0.1", "keep_embeddings.batch_size": "16"}


@dataclass(frozen=True)
class Regime:
    """A setting for transferring the pretrained encoder to the tasks."""

    title: str
    settings: Settings
    """What it changes in the configuration."""
    after: str | None = None
    """The task that a separate run trains first; this run starts from its model."""


FROZEN: Settings = {"freeze": "encoder"}
REGIMES: Mapping[str, Regime] = {
    "linear": Regime("whole network frozen, linear heads", {**FROZEN, **LINEAR}),
    "strong": Regime("encoder frozen, stronger heads", {**FROZEN, **STRONG}),
    "layers": Regime(
        "encoder frozen, heads with 5 layers",
        {**FROZEN, "head_layers": "5", "learning_rate": "2e-4"},
    ),
    "lower": Regime("lower 3 of 6 layers frozen", {"freeze": "layers:3"}),
    "embeddings": Regime("embedding layer frozen", {"freeze": "embeddings"}),
    "head": Regime("trained intent head frozen", {"tasks.intent.frozen": "true"}, after=INTENT),
    "gradual": Regime("unfrozen by a layer an epoch", {**FROZEN, "unfreeze_every": "1e"}),
    "decay": Regime("rate times 0.8 a layer down", {"layer_decay": "0.8"}),
    "lora": Regime(
        "LoRA, rank 16, all linear layers",
        {"lora.rank": "16", "lora.targets": "all", "learning_rate": "1e-3"},
    ),
    "tuned": Regime("everything tuned", {}),
    "held": Regime("tuned, embedding held", HELD),
    "both": Regime(
        "tuned, held by 10 times as much, heads with 2 layers",
        {**HELD, "keep_embeddings.weight": "1", "head_layers": "2"},
    ),
}


def main(given: Sequence[str] | None = None) -> None:
    """Train what is missing and write the report."""
    parser = study_parser(__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=REGIMES, default=list(REGIMES), metavar="NAME",
                        help=f"of {', '.join(REGIMES)}")  # fmt: skip
    arguments = parser.parse_args(given)
    folder = arguments.out / "transfer-parts"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for name in arguments.only:
            path = folder / f"{name}-{seed}.json"
            run = partial(run_part, arguments, name, seed)
            do_part(path, arguments.out / f"transfer-{path.stem}", run)
    if not arguments.parts:
        write_report(arguments, folder)


def run_part(arguments: argparse.Namespace, name: str, seed: int, work: Path) -> dict[str, Any]:
    """Train with one setting and score the result."""
    regime, minutes = REGIMES[name], 0.0
    settings = dict(regime.settings)
    if regime.after is not None:
        whole = configured(arguments, {}, seed, work / "before")
        minutes += trained(config_alone(whole, regime.after, whole.epochs)).minutes
        settings["init_from"] = str(work / "before" / "best")
    config = configured(arguments, settings, seed, work / "run")
    run = trained(config)
    best = work / "run" / "best"
    scores = test_scores(best, "snips", arguments.data, [INTENT, SLOTS])
    scores["sts"] = sts(load(best, threads=arguments.threads).encode, arguments.data)
    return {
        "regime": name,
        "seed": seed,
        "trained": run.parameters,
        "epochs": config.epochs,
        "minutes": minutes + run.minutes,
        "best_epoch": run.best_epoch,
        "scores": {metric: scores[metric] for metric in METRICS},
    }


def configured(
    arguments: argparse.Namespace, settings: Settings, seed: int, save_dir: Path
) -> Config:
    """Return the configuration of a run."""
    snips = arguments.data / "snips"
    values = {
        "train_file": str(first_records(snips / "train", arguments.records, arguments.out)),
        "valid_file": str(snips / "dev"),
        "save_dir": str(save_dir),
        "seed": str(seed),
        "threads": str(arguments.threads),
        "keep_checkpoints": "1",
        **({} if arguments.epochs is None else {"num_epochs": str(arguments.epochs)}),
        **settings,
    }
    if "keep_embeddings.weight" in settings:
        values["keep_embeddings.texts"] = str(unlabelled(arguments))
    return load_config(CONFIG, {**values, **dict(item.split("=", 1) for item in arguments.set)})


@dataclass(frozen=True)
class Trained:
    """The values that a run reports."""

    parameters: int
    minutes: float
    best_epoch: int


def trained(config: Config) -> Trained:
    """Train, or resume an interrupted run."""
    save_dir = Path(config.save_dir)
    progress = Listening()
    with progress:
        keep_freed_memory()
        train(config, resume=save_dir.exists(), reporter=progress)
    lines = list(map(json.loads, (save_dir / METRICS_FILE).read_text().splitlines()))
    best = max((line for line in lines if line["event"] == "epoch"), key=lambda e: e["score"])
    seconds = sum(line["seconds"] for line in lines)
    return Trained(progress.parameters, seconds / 60, int(best["epoch"]))


class Listening(TrainingProgress):
    """Shows progress and records the final number of trained parameters."""

    parameters = 0

    def message(self, text: str) -> None:
        """Forward a message."""
        if text.startswith("Training ") and "parameters" in text:
            first, *others = re.findall(r"([\d,]+) (?:of [\d,]+ )?parameters", text)
            self.parameters = int((others or [first])[-1].replace(",", ""))
        super().message(text)


def unlabelled(arguments: argparse.Namespace) -> Path:
    """Write the sentences of the STS benchmark's training pairs, without their scores."""
    path: Path = arguments.out / "stsb-sentences.txt"
    if not path.exists():
        pairs = sts_pairs(arguments.data / "stsb" / "train.csv")
        found = dict.fromkeys(" ".join(text.split()) for pair in pairs for text in pair[:2])
        written = path.with_suffix(f".{os.getpid()}")
        written.write_text("".join(f"{text}\n" for text in found if text), encoding="utf-8")
        written.replace(path)
    return path


def sts_pairs(path: Path) -> list[tuple[str, str, float]]:
    """Read pairs of sentences and their scores."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(first, second, float(score)) for first, second, score in csv.reader(file)]


def sts(embed: pytorch.Embedder, data: Path) -> float:
    """Return the rank correlation of the embeddings' cosines with the test pairs' scores."""
    pairs = sts_pairs(data / "stsb" / "test.csv")
    vectors = []
    for side in (0, 1):
        rows = embed([str(pair[side]) for pair in pairs])
        vectors.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    cosines = (vectors[0] * vectors[1]).sum(axis=1)
    return spearman([score for _, _, score in pairs], cosines.tolist())


def write_report(arguments: argparse.Namespace, folder: Path) -> None:
    """Combine the parts."""
    parts = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    runs = {
        name: [p for p in parts if p["regime"] == name and p["seed"] in arguments.seeds]
        for name in arguments.only
    }
    # What is set for every run may need the settings of a regime; all begin with one encoder.
    regime = REGIMES[arguments.only[0]]
    settings = {} if regime.after else regime.settings
    original = pytorch.source_embedder(
        configured(arguments, settings, arguments.seeds[0], arguments.out), arguments.threads
    )
    report = {
        "machine": machine(),
        "threads": arguments.threads,
        "records": arguments.records,
        "original_sts": sts(original, arguments.data),
        "runs": {name: found for name, found in runs.items() if found},
    }
    (arguments.out / "transfer.json").write_text(json.dumps(report, indent=2) + "\n")
    text = markdown(report)
    (arguments.out / "transfer.md").write_text(text)
    print(text)
    draw(report, arguments.out / "transfer.png")
    print(f"Saved {arguments.out}/transfer.json and transfer.md")


def markdown(report: Mapping[str, Any]) -> str:
    """Return the table for the documentation."""
    epochs = sorted({str(run["epochs"]) for runs in report["runs"].values() for run in runs})
    lines = [
        f"{report['machine']}, {report['threads']} threads; {' and '.join(epochs)} epochs over "
        f"{report['records'] or 'all'} training sentences. Scores on the test data in percent: "
        "means over the seeds, with the smallest and the largest. The original embedding has "
        f"{100 * report['original_sts']:.1f} on STS-B.",
        "",
        f"| regime | trained parameters | minutes | {' | '.join(METRICS.values())} | seeds |",
        f"|---|---:|---:|{'---:|' * len(METRICS)}---:|",
    ]
    for name, runs in report["runs"].items():
        scores = [spread([run["scores"][metric] for run in runs]) for metric in METRICS]
        minutes = statistics.mean(run["minutes"] for run in runs)
        lines.append(
            f"| {REGIMES[name].title} | {runs[0]['trained']:,} | {minutes:.1f} | "
            f"{' | '.join(scores)} | {len(runs)} |"
        )
    return "\n".join(lines) + "\n"


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw the cost and the scores of each setting."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    runs = dict(reversed(report["runs"].items()))
    titles = [REGIMES[name].title for name in runs]
    panels = [
        ("frame accuracy", [100 * mean_score(r, "frame accuracy") for r in runs.values()]),
        ("STS-B after", [100 * mean_score(r, "sts") for r in runs.values()]),
        ("minutes", [statistics.mean(one["minutes"] for one in r) for r in runs.values()]),
    ]
    figure = Figure(figsize=(12, 1.2 + 0.36 * len(runs)), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
        bars = axes.barh(titles, values, color="#1f77b4")
        for label in axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=5):
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
        axes.set_xlim(0, 1.2 * max(*values, 1e-9))
        axes.set_title(title, fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        if title == "STS-B after":
            axes.axvline(100 * report["original_sts"], color="tab:red", linewidth=1)
    figure.savefig(path, dpi=140)


def mean_score(runs: Sequence[Mapping[str, Any]], metric: str) -> float:
    """Return the mean of a metric over runs."""
    return float(statistics.mean(run["scores"][metric] for run in runs))


if __name__ == "__main__":
    main()
