"""How to mix tasks: every schedule and every way to weigh losses, against each task alone.

    python benchmarks/mixing.py --data DIR [--seeds N ...] [--only NAME ...] [--records N]

DIR holds `snips` (train, dev, test), `banking77` and `wnut17`. Two tasks of disjoint sentences
(banking77 and WNUT 2017) and two of the same sentences (SNIPS) are trained by the configurations in
`src`, as long as each other in epochs; the validation data choose the epoch, and the test data are
scored once. Writes mixing.json, mixing.md and mixing.png. What is done is kept in the folder
`mixing-parts`, and not done again; several processes on one folder share the work, with `--parts`
all but the last, which writes the report.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from accuracy import CONFIGS, FILES, hold_out, machine, test_scores, train_one
from manyheads.config import Config, load_config
from manyheads.storage import METRICS_FILE
from manyheads.training import config_alone
from shared_parts import do_part, spread, study_parser
from snips import first_records

T = TypeVar("T")

BANKING, SNIPS = "banking77_wnut17", "snips"
TITLES: Mapping[str, str] = {BANKING: "banking77 + WNUT 2017", SNIPS: "SNIPS"}
METRICS: Mapping[str, Sequence[str]] = {
    BANKING: ("intent accuracy", "entities f1"),
    SNIPS: ("intent accuracy", "slots f1", "frame accuracy"),
}
# The schedules under which gradients can be compared: several tasks in each step.
AT_ONCE: Mapping[str, str] = {BANKING: "together", SNIPS: "joint"}
MEASURED = {"log_gradients": "20"}


@dataclass(frozen=True)
class Mix:
    """A setting for training the tasks."""

    title: str
    settings: Mapping[str, str]
    """What it changes in the configuration."""
    sets: tuple[str, ...] = (BANKING, SNIPS)
    """The data on which it differs: the tasks of SNIPS have the same size, so shares by size equal
    turns, and those of banking77 + WNUT 2017 share no record."""


def _weighed(method: str) -> Mix:
    return Mix(f"weighed by {method}", {"balancing": method})


ALONE = "alone"
MIXES: Mapping[str, Mix] = {
    ALONE: Mix("each task alone", {}),
    "alternate": Mix("in turn", {"schedule": "alternate"}),
    "proportional": Mix("in proportion to size", {"schedule": "proportional"}, (BANKING,)),
    "temperature": Mix("size to the power 0.5", {"schedule": "temperature"}, (BANKING,)),
    "annealed": Mix("from proportion to uniform", {"schedule": "annealed"}, (BANKING,)),
    "joint": Mix("the same records for all", {"schedule": "joint", **MEASURED}, (SNIPS,)),
    "together": Mix("all in each step", {"schedule": "together", **MEASURED}),
    "uncertainty": _weighed("uncertainty"),
    "dwa": _weighed("dwa"),
    "gradnorm": _weighed("gradnorm"),
    "pcgrad": _weighed("pcgrad"),
    "cagrad": _weighed("cagrad"),
}


def main(given: Sequence[str] | None = None) -> None:
    """Train what is missing and write the report."""
    parser = study_parser(__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--only", nargs="+", choices=MIXES, default=list(MIXES), metavar="NAME",
                        help=f"of {', '.join(MIXES)}")  # fmt: skip
    arguments = parser.parse_args(given)
    folder = arguments.out / "mixing-parts"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for data, name in chosen(arguments):
            path = folder / f"{data}-{name}-{seed}.json"
            run = partial(run_part, arguments, data, name, seed)
            do_part(path, arguments.out / f"mixing-{path.stem}", run)
    if not arguments.parts:
        write_report(arguments, folder)


def chosen(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yield the data sets, each with the settings for mixing its tasks."""
    for data in arguments.sets:
        yield from ((data, name) for name in arguments.only if data in MIXES[name].sets)


def run_part(
    arguments: argparse.Namespace, data: str, name: str, seed: int, folder: Path
) -> dict[str, Any]:
    """Train all tasks, or each alone, and score the test data."""
    overrides = {
        **training_files(arguments, data),
        "schedule": AT_ONCE[data],
        **MIXES[name].settings,
        "seed": str(seed),
        "threads": str(arguments.threads),
        "keep_checkpoints": "1",
        **({} if arguments.epochs is None else {"num_epochs": str(arguments.epochs)}),
        **dict(item.split("=", 1) for item in arguments.set),
    }

    def configured(run: str) -> Config:
        values = {**overrides, "save_dir": str(folder / run)}
        return load_config(CONFIGS / f"config_{data}.yaml", values)

    configs = {name: configured(name)}
    if name == ALONE:
        tasks = configs.pop(name).tasks
        configs = {t: config_alone(c, t, c.epochs) for t in tasks for c in (configured(t),)}
    scores: dict[str, float] = {}
    lines: dict[str, list[dict[str, Any]]] = {}
    for run, config in configs.items():
        save_dir = Path(config.save_dir)
        train_one(config, resume=save_dir.exists())
        lines[run] = list(map(json.loads, (save_dir / METRICS_FILE).read_text().splitlines()))
        scores |= test_scores(save_dir / "best", data, arguments.data, list(config.tasks))
    every = [line for found in lines.values() for line in found]
    return {
        "data": data,
        "mix": name,
        "seed": seed,
        "epochs": config.epochs,
        "minutes": sum(line["seconds"] for line in every) / 60,
        "best_epoch": {run: best_epoch(found) for run, found in lines.items()},
        "scores": {metric: scores[metric] for metric in METRICS[data] if metric in scores},
        **measured(every),
    }


def best_epoch(lines: Sequence[Mapping[str, Any]]) -> int:
    """Return the epoch chosen on the validation data."""
    epochs = [line for line in lines if line["event"] == "epoch"]
    return int(max(epochs, key=lambda line: line["score"])["epoch"])


def measured(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the log's weights and gradients: the last weights and the mean cosines."""
    steps = [line for line in lines if line["event"] == "step"]
    gradients = [line["gradients"] for line in steps if "gradients" in line]
    weights: dict[str, float] = {}
    for line in steps:
        weights |= line["weight"]
    return {
        "weights": weights,
        **{
            quantity: statistics.mean(v for found in gradients for v in found[quantity].values())
            for quantity in ("cosine", "conflict")
            if any(found[quantity] for found in gradients)
        },
    }


def training_files(arguments: argparse.Namespace, data: str) -> dict[str, str]:
    """Return where the data are, for a configuration; what is not as published is written first."""
    files = {key: arguments.data / path for key, path in FILES[data].items()}
    folder = arguments.out / f"mixing-data-{data}-{arguments.records or 'all'}"
    if not folder.exists():
        # Written aside and renamed, because another process may do the same.
        made = Path(tempfile.mkdtemp(dir=arguments.out))
        (write_banking if data == BANKING else write_snips)(files, arguments.records, made)
        with suppress(OSError):
            made.rename(folder)
        shutil.rmtree(made, ignore_errors=True)
    written = {key: folder / f"{key}{path.suffix}" for key, path in files.items()}
    if data == BANKING:
        written["tasks.intent.valid_file"] = folder / "tasks.intent.valid_file.csv"
    return {
        key: str(path if path.exists() else files[key]) for key, path in written.items()
    }  # fmt: skip


def write_banking(files: Mapping[str, Path], count: int | None, folder: Path) -> None:
    """Hold out validation data and write the used part of the training data."""
    intent, entities = "tasks.intent.train_file", "tasks.entities.train_file"
    held = hold_out(files[intent], folder, "tasks.intent")
    with Path(held[intent]).open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    blocks = re.split(r"\n\s*\n", files[entities].read_text(encoding="utf-8").strip())
    share = 1.0 if count is None else min(1.0, count / (len(rows) + len(blocks)))
    with (folder / f"{intent}.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *evenly(rows, share)])
    text = "".join(f"{block}\n\n" for block in evenly(blocks, share))
    (folder / f"{entities}.conll").write_text(text, encoding="utf-8")
    key = "tasks.intent.valid_file"
    Path(held[key]).rename(folder / f"{key}.csv")


def write_snips(files: Mapping[str, Path], count: int | None, folder: Path) -> None:
    """Write the used part of the training data, unless it is all."""
    if count is not None:
        first_records(files["train_file"], count, folder).rename(folder / "train_file")


def evenly(items: Sequence[T], share: float) -> list[T]:
    """Pick items evenly from the whole list, because the files are sorted by class."""
    return [x for i, x in enumerate(items) if math.floor((i + 1) * share) > math.floor(i * share)]


def write_report(arguments: argparse.Namespace, folder: Path) -> None:
    """Combine the parts."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for data, name in chosen(arguments):
        of_it = [p for p in found if (p["data"], p["mix"]) == (data, name)]
        if seeds := [p for p in of_it if p["seed"] in arguments.seeds]:
            runs.setdefault(data, {})[name] = seeds
    report = {
        "machine": machine(),
        "threads": arguments.threads,
        "records": arguments.records,
        "runs": runs,
    }
    (arguments.out / "mixing.json").write_text(json.dumps(report, indent=2) + "\n")
    text = markdown(report)
    (arguments.out / "mixing.md").write_text(text)
    print(text)
    draw(report, arguments.out / "mixing.png")
    print(f"Saved {arguments.out}/mixing.json and mixing.md")


def markdown(report: Mapping[str, Any]) -> str:
    """Return the tables for the documentation."""
    lines = [
        f"{report['machine']}, {report['threads']} threads; {report['records'] or 'all'} training "
        "sentences of each data set. Scores on the test data in percent: means over the seeds with "
        "the smallest and the largest, and the mean difference from each task alone. Cosine: of "
        "the two tasks' gradients of the encoder, with the share of steps where it is negative. "
        "Losses are weighed in runs that have all tasks in each step, on SNIPS of the same records."
    ]
    for data, mixes in report["runs"].items():
        epochs = sorted({str(run["epochs"]) for runs in mixes.values() for run in runs})
        lines += [
            "",
            f"{TITLES[data]}, {' and '.join(epochs)} epochs:",
            "",
            f"| trained | {' | '.join(METRICS[data])} | minutes | cosine | seeds |",
            f"|---|{'---:|' * (len(METRICS[data]) + 3)}",
        ]
        for name, runs in mixes.items():
            cells = [score(runs, mixes.get(ALONE, []), metric) for metric in METRICS[data]]
            minutes = statistics.mean(run["minutes"] for run in runs)
            cells += [f"{minutes:.1f}", conflict(runs), str(len(runs))]
            lines.append(f"| {MIXES[name].title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def score(
    runs: Sequence[Mapping[str, Any]], alone: Sequence[Mapping[str, Any]], metric: str
) -> str:
    """Format the mean of a metric, its range, and the difference from the task alone."""
    values = [run["scores"][metric] for run in runs if metric in run["scores"]]
    if not values:
        return "-"
    told = spread(values)
    found = differences(runs, alone, metric)
    return told if not found or runs is alone else f"{told}, {statistics.mean(found):+.1f}"


def differences(
    runs: Sequence[Mapping[str, Any]], alone: Sequence[Mapping[str, Any]], metric: str
) -> list[float]:
    """Return the differences from the tasks alone in points, one per seed that both have."""
    before = {run["seed"]: run["scores"][metric] for run in alone if metric in run["scores"]}
    return [
        100 * (run["scores"][metric] - before[run["seed"]])
        for run in runs
        if run["seed"] in before and metric in run["scores"]
    ]


def conflict(runs: Sequence[Mapping[str, Any]]) -> str:
    """Format the mean cosine and the share of steps in conflict, if measured."""
    if not all("cosine" in run for run in runs):
        return "-"
    cosine, share = (statistics.mean(run[q] for run in runs) for q in ("cosine", "conflict"))
    return f"{cosine:+.2f} ({share:.0%})"


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw each setting's gain over each task alone: a dot per seed, a bar for the mean."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    panels = [
        (data, metric)
        for data, mixes in report["runs"].items()
        for metric in METRICS[data]
        if any(metric in run["scores"] for run in mixes.get(ALONE, []))
    ]
    if not panels:
        print("nothing is trained alone: no picture")
        return
    figure = Figure(figsize=(1 + 4 * len(panels), 4.5), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (data, metric) in zip(axes, panels, strict=True):
        mixes = dict(reversed(report["runs"][data].items()))
        alone = mixes.pop(ALONE)
        for number, runs in enumerate(mixes.values()):
            found = differences(runs, alone, metric)
            axis.plot(found, [number] * len(found), "o", color="#1f77b4", alpha=0.5)
            if found:
                axis.plot(statistics.mean(found), number, "|", color="#1f77b4", markersize=18)
        axis.set_yticks(range(len(mixes)), [MIXES[name].title for name in mixes])
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(f"{TITLES[data]}: {metric}", fontsize=10)
        axis.set_xlabel("points above the task alone")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=140)


if __name__ == "__main__":
    main()
