"""One table over the public data sets: accuracy, speed and size, ours, spaCy's and published.

    python benchmarks/scoreboard.py --data DIR --model snips=FOLDER ["snips=FOLDER=NAME" ...]

DIR holds the data sets' folders. Each model is scored and timed with every backend that it was
exported for, on the test sentences as text. All systems of a data set are loaded at once and take
turns; the rate is that of the fastest round. spaCy (if it is installed) is trained on the training
sentences first. Published figures have no rate. Writes scoreboard.json, scoreboard.md and
scoreboard.png.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from accuracy import machine
from manyheads.config import TaskConfig, available_cores, make_config
from manyheads.data.records import read_records
from manyheads.evaluation import score
from manyheads.inference import exported_backends, graph_files, load_predictor
from manyheads.storage import LAYOUT, read_manifest, resolve_model
from manyheads.tasks import kind_of
from rivals import SpacyPipeline

TESTS: Mapping[str, tuple[str, str]] = {
    "snips": ("snips/train", "snips/test"),
    "banking77": ("banking77/train.csv", "banking77/test.csv"),
    "clinc150": ("clinc150/data_full.json@train", "clinc150/data_full.json@test"),
    "wnut17": ("wnut17/wnut17train.conll", "wnut17/emerging.test.annotated"),
}
"""By data set, training and test data below DIR."""


@dataclass(frozen=True)
class Row:
    """A system on a data set."""

    data: str
    system: str
    megabytes: float | None
    rate: float | None
    """Sentences per second."""
    scores: Mapping[str, float]
    """Shares, by metric."""


PUBLISHED: Sequence[Row] = (
    Row("snips", "joint BERT-base with CRF (published)", 440, None,
        {"accuracy": 0.9857, "f1": 0.9724, "frame": 0.9357}),
    Row("snips", "joint DistilBERT with CRF (published)", 265, None,
        {"accuracy": 0.9857, "f1": 0.9646, "frame": 0.9185}),
)  # fmt: skip


@dataclass(frozen=True)
class System:
    """A system that is ready to run."""

    row: Row
    run: Callable[[Sequence[str]], object]


def ours(data: str, folder: Path, name: str, test: str, threads: int) -> list[System]:
    """Load a model with each of its backends, and score it on the test data."""
    manifest = read_manifest(resolve_model(folder))
    systems = []
    for backend in ("torch", *exported_backends(manifest)):
        predictor = load_predictor(folder, backend=backend, threads=threads)
        tasks = tasks_of(folder)
        records = list(read_records(test, tasks, {}, allow_unseen=True))
        found = score(predictor, [(records, tuple(tasks))]).evaluation()
        scores = {
            kind_of(tasks[task].kind).main_metric: metrics[kind_of(tasks[task].kind).main_metric]
            for task, metrics in found["tasks"].items()
        }
        if len(tasks) > 1:
            scores["frame"] = found["frame_accuracy"]
        files = (LAYOUT.weights, LAYOUT.heads) if backend == "torch" else graph_files(backend)
        places = [manifest.folder / file for file in files]
        size = sum(place.stat().st_size for place in places if place.exists())
        row = Row(data, f"{name}, {backend}", size / 1e6, None, scores)
        systems.append(System(row, partial(predictor.predict, embed=True)))
    return systems


def tasks_of(folder: Path) -> Mapping[str, TaskConfig]:
    """Return a model's tasks, as `read_records` takes them."""
    return make_config(read_manifest(resolve_model(folder)).config).tasks


def spacy(
    data: str, tasks: Mapping[str, TaskConfig], train: str, test: str, epochs: int
) -> list[System]:
    """Train spaCy's pipeline for a class and entities; none where it isn't installed."""
    kinds = {task.kind: name for name, task in tasks.items()}
    if set(kinds) != {"classification", "tagging"}:
        return []
    try:
        pipeline = SpacyPipeline(
            list(read_records(train, tasks, {})), kinds["classification"], kinds["tagging"],
            epochs=epochs,
        )  # fmt: skip
    except ImportError:
        print("spaCy is not installed: left out")
        return []
    records = list(read_records(test, tasks, {}, allow_unseen=True))
    size = len(pipeline.nlp.to_bytes()) / 1e6
    row = Row(data, "spaCy, shared tok2vec", size, None, pipeline.scores(records))
    return [System(row, pipeline)]


def timed(systems: Sequence[System], texts: Sequence[str], rounds: int) -> list[Row]:
    """Time the systems in turns; returns their rows with the rate of the fastest round."""
    best = [float("inf")] * len(systems)
    for _ in range(rounds + 1):  # the first one warms up
        for place, system in enumerate(systems):
            began = time.perf_counter()
            system.run(texts)
            best[place] = min(best[place], time.perf_counter() - began)
    return [
        replace(one.row, rate=len(texts) / seconds)
        for one, seconds in zip(systems, best, strict=True)
    ]


def markdown(rows: Sequence[Row], threads: int) -> str:
    """Return the table, the fastest of a data set first."""
    metrics = list(dict.fromkeys(name for row in rows for name in row.scores))
    lines = [
        f"{machine()}, {threads} threads.", "",
        f"| data | system | sentences/s | MB | {' | '.join(metrics)} |",
        f"|---|---|---:|---:|{'---:|' * len(metrics)}",
    ]  # fmt: skip
    for row in sorted(rows, key=lambda row: (row.data, -(row.rate or 0.0))):
        shown = [f"{100 * row.scores[m]:.2f}" if m in row.scores else "" for m in metrics]
        rate = "" if row.rate is None else f"{row.rate:,.0f}"
        size = "" if row.megabytes is None else f"{row.megabytes:,.0f}"
        lines.append(f"| {row.data} | {row.system} | {rate} | {size} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def picture(rows: Sequence[Row], path: Path) -> None:
    """Draw the mean of the metrics against the rate; published accuracies are lines."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    names = sorted({row.data for row in rows})
    figure = Figure(figsize=(5 * len(names), 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for row in (row for row in rows if row.data == name):
            mean = 100 * sum(row.scores.values()) / len(row.scores)
            if row.rate is None:
                axes.axhline(mean, linestyle=":", linewidth=1, color="grey")
                axes.annotate(row.system, (0.01, mean), xycoords=("axes fraction", "data"), size=7)
            else:
                axes.plot(row.rate, mean, "o")
                axes.annotate(row.system, (row.rate, mean), size=7)
        axes.set(xscale="log", xlabel="sentences per second", ylabel="mean score", title=name)
    figure.savefig(path, dpi=140)


def main(argv: Sequence[str] | None = None) -> None:
    """Score and time all systems, and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument(
        "--model", action="append", required=True, metavar="SET=FOLDER[=NAME]",
        help=f"a model and its data set: {', '.join(TESTS)}; repeatable",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spacy-epochs", type=int, default=10, help="0 leaves spaCy out")
    arguments = parser.parse_args(argv)
    models: dict[str, list[tuple[Path, str]]] = {}
    for text in arguments.model:
        data, _, rest = text.partition("=")
        folder, _, name = rest.partition("=")
        if data not in TESTS or not folder:
            parser.error(f"--model {text}: expected SET=FOLDER, SET one of {', '.join(TESTS)}")
        models.setdefault(data, []).append((Path(folder), name or f"Manyheads ({folder})"))
    rows: list[Row] = [row for row in PUBLISHED if row.data in models]
    for data, some in models.items():
        train, test = (str(arguments.data / file) for file in TESTS[data])
        systems = [s for one in some for s in ours(data, *one, test, arguments.threads)]
        tasks = tasks_of(some[0][0])
        if arguments.spacy_epochs:
            systems += spacy(data, tasks, train, test, arguments.spacy_epochs)
        texts = [record.text for record in read_records(test, tasks, {}, allow_unseen=True)]
        rows += timed(systems, texts, arguments.rounds)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "scoreboard.json").write_text(
        json.dumps([asdict(row) for row in rows], indent=2) + "\n"
    )
    table = markdown(rows, arguments.threads)
    (arguments.out / "scoreboard.md").write_text(table)
    picture(rows, arguments.out / "scoreboard.png")
    print(table)


if __name__ == "__main__":
    main()
