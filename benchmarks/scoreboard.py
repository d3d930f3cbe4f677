"""One table over the public data sets: accuracy, speed and size, ours, others' and published.

    python benchmarks/scoreboard.py --data DIR --model snips=FOLDER ["snips=FOLDER=NAME" ...]

DIR holds the data sets' folders. Each model is scored and timed with every backend that it was
exported for, on the test sentences as text. All systems of a data set are loaded at once and take
turns; the rate is that of the fastest round. The others are trained on the training sentences
first: spaCy's pipeline, and for classes alone model2vec's classifier on vectors distilled from the
same encoder, and SetFit with it (`--setfit SET=PAIRS`). SetFit and spaCy take long, and are kept in
the output's folder for the next run. Those that are not installed are left
out. Published figures have no rate. Writes scoreboard.json, scoreboard.md and scoreboard.svg, in
which the line is the Pareto front: no system is both faster and better.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from accuracy import machine
from manyheads.config import TaskConfig, available_cores, make_config
from manyheads.data.readers import Layout
from manyheads.data.records import Record, read_records
from manyheads.evaluation import score
from manyheads.inference import Runtime, exported_backends, graph_files, load_model
from manyheads.modeling import find_encoder
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

LAYOUT_OF = {"banking77": Layout(names={"category": "label"})}
"""Columns that are read as the field of the models' task."""


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
    Row("clinc150", "BERT-base (published)", 440, None, {"accuracy": 0.962}),
    Row("wnut17", "DistilBERT (published, the best of 34 to 47)", 265, None, {"f1": 0.47}),
)  # fmt: skip

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
"""That of the other systems."""


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
        predictor = load_model(folder, Runtime(backend, threads=threads)).predictor
        tasks = tasks_of(folder)
        records = records_of(data, test, tasks)
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


def records_of(data: str, path: str, tasks: Mapping[str, TaskConfig]) -> list[Record]:
    """Read the labelled records of a data set's file."""
    return list(read_records(path, tasks, {}, layout=LAYOUT_OF.get(data), allow_unseen=True))


def tasks_of(folder: Path) -> Mapping[str, TaskConfig]:
    """Return a model's tasks, as `read_records` takes them."""
    return make_config(read_manifest(resolve_model(folder)).config).tasks


def spacy(
    data: str, tasks: Mapping[str, TaskConfig], train: str, test: str, epochs: int, out: Path
) -> list[System]:
    """Train spaCy's pipeline for a class, entities or both; none where it isn't installed."""
    kinds = {task.kind: name for name, task in tasks.items()}
    if not set(kinds) <= {"classification", "tagging"}:
        return []
    try:
        pipeline = SpacyPipeline.kept(
            out / f"spacy-{data}-{epochs}", records_of(data, train, tasks),
            kinds.get("classification"), kinds.get("tagging"), epochs=epochs,
        )  # fmt: skip
    except ImportError:
        print("spaCy is not installed: left out")
        return []
    records = records_of(data, test, tasks)
    size = len(pipeline.nlp.to_bytes()) / 1e6
    row = Row(
        data,
        "spaCy" if len(kinds) == 1 else "spaCy, shared tok2vec",
        size,
        None,
        pipeline.scores(records),
    )
    return [System(row, pipeline)]


def classifiers(
    data: str, tasks: Mapping[str, TaskConfig], train: str, test: str, pairs: int, out: Path
) -> list[System]:
    """Train the systems for classes alone; none for a data set without classes."""
    from few_rivals import static_model

    names = [name for name, task in tasks.items() if task.kind == "classification"]
    if not names:
        return []
    folder = find_encoder(ENCODER).root
    known, asked = (
        [(record.text, str(record.labels[names[0]])) for record in records_of(data, path, tasks)]
        for path in (train, test)
    )
    texts, labels = zip(*known, strict=True)
    makers: dict[str, Callable[[], Any]] = {
        "model2vec, classes only": partial(static_model, folder, texts, labels, seed=1)
    }
    if pairs:
        makers["SetFit, classes only"] = partial(
            kept_setfit, out / f"setfit-{data}-{pairs}", folder, texts, labels, pairs=pairs
        )
    systems = []
    for name, make in makers.items():
        try:
            model = make()
        except ImportError as error:
            print(f"{name}: left out ({error})")
            continue
        answers = model.predict([text for text, _ in asked])
        right = sum(str(a) == label for a, (_, label) in zip(answers, asked, strict=True))
        row = Row(data, name, _megabytes(model), None, {"accuracy": right / len(asked)})
        systems.append(System(row, model.predict))
    return systems


def kept_setfit(
    place: Path, encoder: Path, texts: Sequence[str], labels: Sequence[str], *, pairs: int
) -> Any:
    """Return the SetFit model of an earlier run, or train it and keep it there."""
    from few_rivals import setfit_model

    if place.exists():
        return import_module("setfit").SetFitModel.from_pretrained(str(place))
    model = setfit_model(encoder, texts, labels, pairs=pairs, seed=1)
    unfinished = place.with_name(f"{place.name}.partial")
    model.save_pretrained(str(unfinished))
    unfinished.rename(place)
    return model


def _megabytes(model: Any) -> float:
    """Return the size of a model's parameters; those of SetFit's regression are left out."""
    body = getattr(model, "model_body", model)
    return float(sum(p.numel() * p.element_size() for p in body.parameters()) / 1e6)


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


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other one exceeds in one number and reaches in the other.

    Args:
        points: rates and scores.

    Returns:
        The Pareto front, the fastest first.
    """
    kept: list[tuple[float, float]] = []
    for rate, value in sorted(set(points), reverse=True):
        if not kept or value > kept[-1][1]:
            kept.append((rate, value))
    return kept


_METRICS = {"accuracy": "accuracy", "f1": "F1", "frame": "frame accuracy"}


def picture(rows: Sequence[Row], path: Path) -> None:
    """Draw each metric against the rate, with its Pareto front; published scores are lines."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    timed_rows = [row for row in rows if row.rate is not None]
    panels = [
        (data, metric)
        for data in sorted({row.data for row in timed_rows})
        for metric in _METRICS
        if any(row.data == data and metric in row.scores for row in timed_rows)
    ]
    styles: dict[str, dict[str, Any]] = {
        name: {"color": f"C{i % 10}", "marker": "o" if name.startswith("Manyheads") else "^"}
        for i, name in enumerate(dict.fromkeys(row.system for row in timed_rows))
    }
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3 * lines + 0.12 * len(styles)), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, (data, metric) in zip(grid, panels, strict=False):
        some = [row for row in rows if row.data == data and metric in row.scores]
        _plot(axes, some, metric, styles)
        axes.set_title(f"{data}: {_METRICS[metric]}")
    for axes in grid[len(panels) :]:
        axes.remove()
    marks = [Line2D([], [], linestyle="", label=name, **style) for name, style in styles.items()]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(path)


def _plot(
    axes: Any, rows: Sequence[Row], metric: str, styles: Mapping[str, Mapping[str, Any]]
) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    points = []
    published: dict[float, list[str]] = {}
    for row in rows:
        value = 100 * row.scores[metric]
        if row.rate is None:
            published.setdefault(value, []).append(row.system)
            continue
        axes.plot(row.rate, value, linestyle="", zorder=3, **styles[row.system])
        points.append((row.rate, value))
    for value, names in published.items():
        axes.axhline(value, linestyle=":", linewidth=1, color="grey")
        axes.annotate(
            ", ".join(names), (0.02, value), xycoords=("axes fraction", "data"), size=6,
            color="grey", xytext=(0, 2), textcoords="offset points",
        )  # fmt: skip
    axes.plot(*zip(*front(points), strict=True), color="black", linewidth=0.8, alpha=0.6)
    axes.set_xscale("log")
    rates = [rate for rate, _ in points]
    near = max(rates) < 5 * min(rates)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5) if near else (1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("sentences per second", size=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


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
    parser.add_argument(
        "--setfit", action="append", default=[], metavar="SET=PAIRS",
        help="a data set on which SetFit learns, and its pairs of each kind for every sentence",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    pairs = {data: int(count) for data, _, count in (s.partition("=") for s in arguments.setfit)}
    models: dict[str, list[tuple[Path, str]]] = {}
    for text in arguments.model:
        data, _, rest = text.partition("=")
        folder, _, name = rest.partition("=")
        if data not in TESTS or not folder:
            parser.error(f"--model {text}: expected SET=FOLDER, SET one of {', '.join(TESTS)}")
        name = name or "Manyheads"
        if any(name == other for _, other in models.setdefault(data, [])):
            parser.error(f"--model {text}: another model of {data} is named {name}; add =NAME")
        models[data].append((Path(folder), name))
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = [row for row in PUBLISHED if row.data in models]
    for data, some in models.items():
        train, test = (str(arguments.data / file) for file in TESTS[data])
        systems = [s for one in some for s in ours(data, *one, test, arguments.threads)]
        tasks = tasks_of(some[0][0])
        if arguments.spacy_epochs:
            systems += spacy(data, tasks, train, test, arguments.spacy_epochs, arguments.out)
        systems += classifiers(data, tasks, train, test, pairs.get(data, 0), arguments.out)
        texts = [record.text for record in records_of(data, test, tasks)]
        rows += timed(systems, texts, arguments.rounds)
    (arguments.out / "scoreboard.json").write_text(
        json.dumps([asdict(row) for row in rows], indent=2) + "\n"
    )
    table = markdown(rows, arguments.threads)
    (arguments.out / "scoreboard.md").write_text(table)
    picture(rows, arguments.out / "scoreboard.svg")
    print(table)


if __name__ == "__main__":
    main()
