"""The speed-up from caching the output of a frozen encoder: epochs with and without, in one run.

    python benchmarks/frozen_cache.py --data SNIPS_FOLDER [--threads N] [--precision float32]

SNIPS_FOLDER holds `train` and `dev`. One configuration is trained twice with the same seed: the
encoder is frozen, a linear head on the sentence vector predicts the intent and one on the word
vectors the slots, from the same batches. In the first run the encoder computes every batch
(`cache_activations: off`), in the second each sentence once.

The report has the seconds of the epochs after the first, separately for training steps, evaluation
and saving (the same for both), and the largest difference between the losses and weights of the two
runs. Writes frozen-cache.json and frozen-cache.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import manyheads.training.loop as training_module
from accuracy import machine
from manyheads.config import Config
from manyheads.modeling import epoch_path, keep_freed_memory, load_checkpoint
from manyheads.training import Reporter, StepReport, train
from snips import configuration, first_records, training_parser

WITHOUT, WITH = "without", "with"
CACHE: Mapping[str, str] = {WITHOUT: "off", WITH: "auto"}
PARTS = ("training", "evaluation", "saving")

SMOKE: Mapping[str, Any] = {"records": 12, "valid_records": 12, "epochs": 2, "batch_size": 4}


@dataclass
class Epochs(Reporter):
    """A reporter that records the losses of all steps and the seconds of all epochs by part."""

    losses: list[float] = field(default_factory=list)
    seconds: list[dict[str, float]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _since: float = 0.0

    def message(self, text: str) -> None:
        """Record a message, such as the chosen precision."""
        self.said.append(text)

    def begin(self, total_steps: int, done_steps: int, tasks: Mapping[str, str]) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def step(self, report: StepReport) -> None:
        """Record a loss."""
        self.losses.append(report.loss)

    def lap(self, part: str) -> None:
        """Add the time since the last call to a part of the current epoch."""
        now = time.perf_counter()
        if part == PARTS[0]:
            self.seconds.append({})
        self.seconds[-1][part] = now - self._since
        self._since = now

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Record the end of the evaluation."""
        self.lap("evaluation")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record the times at which the loop changes between training and the end of an epoch."""
        owner: Any = training_module
        finish = owner.finish_epoch

        def timed(*arguments: Any) -> Path:
            self.lap("training")
            path: Path = finish(*arguments)
            self.lap("saving")
            return path

        owner.finish_epoch = timed
        try:
            yield
        finally:
            owner.finish_epoch = finish


def measure(config: Config) -> dict[str, Any]:
    """Train once; return the seconds of every epoch, all losses and the final weights."""
    watch = Epochs()
    with watch.watching():
        keep_freed_memory()
        result = train(config, overwrite=True, reporter=watch)
    weights = load_checkpoint(epoch_path(result.save_dir, config.epochs)).model
    return {
        "seconds": watch.seconds,
        "losses": watch.losses,
        "weights": {n: w for n, w in weights.items() if not n.startswith("encoder.")},
        "scores": result.history[-1]["score"],
        "arithmetic": next(text for text in watch.said if text.startswith("Training on")),
    }


def compare(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Compare the two runs."""
    seconds = {
        name: {part: statistics.median(e[part] for e in run["seconds"][1:]) for part in PARTS}
        for name, run in runs.items()
    }
    ratios = {part: seconds[WITHOUT][part] / seconds[WITH][part] for part in PARTS[:2]}
    both = [sum(seconds[name][part] for part in PARTS[:2]) for name in (WITHOUT, WITH)]
    one, other = runs[WITHOUT], runs[WITH]
    losses = torch.tensor([one["losses"], other["losses"]], dtype=torch.float64)
    apart = {n: (w - other["weights"][n]).abs().max().item() for n, w in one["weights"].items()}
    return {
        "first_epoch": {name: run["seconds"][0] for name, run in runs.items()},
        "later_epochs": seconds,
        "every_epoch": {name: run["seconds"] for name, run in runs.items()},
        "ratios": {**ratios, "both": both[0] / both[1]},
        "arithmetic": {name: run["arithmetic"] for name, run in runs.items()},
        "scores": {name: run["scores"] for name, run in runs.items()},
        "differences": {
            "loss": (losses[0] - losses[1]).abs().max().item(),
            "first_loss": losses[0, 0].item(),
            "weight": max(apart.values()),
            "largest_weight": max(w.abs().max().item() for w in one["weights"].values()),
        },
    }


def markdown(report: Mapping[str, Any]) -> str:
    """Make the table for the documentation."""
    settings, later, first = report["settings"], report["later_epochs"], report["first_epoch"]
    far, ratios = report["differences"], report["ratios"]
    lines = [
        f"{settings['records']:,} SNIPS sentences in batches of {settings['batch_size']}, "
        f"{settings['steps']} steps an epoch; {settings['valid_records']:,} sentences are "
        f"evaluated. {report['machine']}. {report['arithmetic'][WITH]}",
        "",
        f"| seconds, median of {settings['epochs'] - 1} epochs after the first | without | with | "
        "ratio | first epoch, with |",
        "|---|---:|---:|---:|---:|",
    ]
    for part in PARTS:
        told = f"{ratios[part]:.1f}" if part in ratios else ""
        lines.append(
            f"| {part} | {later[WITHOUT][part]:.3f} | {later[WITH][part]:.3f} | {told} | "
            f"{first[WITH][part]:.3f} |"
        )
    lines += [
        "",
        f"Training and evaluation together: {ratios['both']:.1f} times as fast. A training step "
        f"takes {1e3 * later[WITH]['training'] / settings['steps']:.2f} ms with and "
        f"{1e3 * later[WITHOUT]['training'] / settings['steps']:.1f} ms without. Over all steps "
        f"the losses differ by at most {far['loss']:.1e} (the first is {far['first_loss']:.2f}), "
        f"the weights at the end by {far['weight']:.1e} (the largest is "
        f"{far['largest_weight']:.2f}).",
    ]
    return "\n".join(lines) + "\n"


def main(given: Sequence[str] | None = None) -> None:
    """Train with and without the cache, and write the report."""
    parser = training_parser(__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, help="default: all")
    parser.add_argument("--valid-records", type=int, help="default: all")
    arguments = parser.parse_args(given)
    for name, value in SMOKE.items() if arguments.smoke else ():
        setattr(arguments, name, value)
    if arguments.epochs < 2:
        parser.error("--epochs: at least 2, since it is the epochs after the first that count")
    with tempfile.TemporaryDirectory() as work:
        runs = {}
        for name, cache in CACHE.items():
            print(f"{name} the cache ...", flush=True)
            runs[name] = measure(_config(arguments, Path(work), name, cache))
        lines = {
            part: (first_records(arguments.data / folder, count, Path(work)) / "label").read_text()
            for part, folder, count in (
                ("records", "train", arguments.records),
                ("valid_records", "dev", arguments.valid_records),
            )
        }
    counts = {part: len(text.splitlines()) for part, text in lines.items()}
    settings = {
        **counts,
        "batch_size": arguments.batch_size,
        "epochs": arguments.epochs,
        "threads": arguments.threads,
        "steps": -(-counts["records"] // arguments.batch_size),
    }
    report = {
        "machine": machine(), "torch": torch.__version__, "settings": settings, **compare(runs),
    }  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = markdown(report)
    (arguments.out / "frozen-cache.json").write_text(json.dumps(report, indent=2) + "\n")
    (arguments.out / "frozen-cache.md").write_text(text)
    print(text)


def _config(arguments: argparse.Namespace, work: Path, name: str, cache: str) -> Config:
    model = {"model_name": arguments.model} if arguments.model else {}
    return configuration(
        first_records(arguments.data / "train", arguments.records, work),
        first_records(arguments.data / "dev", arguments.valid_records, work),
        work / name,
        freeze="encoder",
        cache_activations=cache,
        batch_size=arguments.batch_size,
        max_length=arguments.max_length,
        num_epochs=arguments.epochs,
        threads=arguments.threads,
        precision=arguments.precision,
        device="cpu",
        **model,
    )


if __name__ == "__main__":
    main()
