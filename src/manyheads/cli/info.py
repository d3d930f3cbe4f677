"""`manyheads info`: describes a model from its files, without a deep-learning framework."""

from __future__ import annotations

from collections.abc import Mapping

import typer
from rich.table import Table

from manyheads.api.description import Description, describe
from manyheads.cli.options import DEFAULT_MODEL, JsonFile, TrainedModel, write_json_to
from manyheads.display.tables import Section, cell, make_table, printable, show
from manyheads.storage import BEFORE_REFIT
from manyheads.tasks import kind_of

app = typer.Typer(add_completion=False, rich_markup_mode=None)


_REFITTED = (
    "These are the metrics of the model before. This one has learned from all records, those "
    "included that the other was scored on."
)


@app.command()
def info(
    model: TrainedModel = DEFAULT_MODEL,
    *,
    json_file: JsonFile = None,
) -> None:
    """Show the tasks, labels, metrics, versions and files of a model.

    Also checks that its files are intact; if not, the exit status is 2.
    """
    description = describe(model)
    if json_file != "-":
        _show(description)
    description.verify()
    write_json_to(json_file, description.to_json())


def _show(description: Description) -> None:
    labels = [
        f"{spec.name}: {', '.join(printable(label) for label in spec.labels)}"
        for spec in description.tasks
    ]
    tables = [
        (f"{description.path} ({description.kind})", _tasks(description), "\n".join(labels)),
        ("Encoder", _encoder(description), ""),
        ("Metrics", _metrics(description), _REFITTED if description.is_refitted else ""),
        ("Calibration of scores", _calibration(description), _scope(description)),
        ("Made with", _versions(description), ""),
        ("Files", _files(description), ""),
    ]
    show(Section(title, table, note) for title, table, note in tables if table.row_count)


def _tasks(description: Description) -> Table:
    table = make_table(["task", "kind", "decoder"], ["labels"])
    for spec in description.tasks:
        decoder = spec.decoder or "-"
        table.add_row(cell(spec.name), cell(spec.kind), cell(decoder), f"{len(spec.labels):,}")
    return table


def _encoder(description: Description) -> Table:
    table = make_table(["setting", "value"])
    source = {"from": description.config.get("model_name")}
    for name, value in {**description.encoder, **source}.items():
        if value not in (None, {}):
            pairs = value.items() if isinstance(value, Mapping) else ()
            shown = ", ".join(f"{key}: {text!r}" for key, text in pairs)
            table.add_row(cell(name), cell(shown or value))
    return table


def _metrics(description: Description) -> Table:
    table = make_table(["task", "metric"], ["on validation"])
    for task, name, value in description.metric_rows():
        table.add_row(cell(task), cell(name), f"{value:.4f}")
    return table


def _calibration(description: Description) -> Table:
    table = make_table(["task", "scores"], ["error before", "error after"])
    known = description.calibration.get("tasks", {})
    for spec in (spec for spec in description.tasks if kind_of(spec.kind).calibrates):
        if spec.name not in known:
            table.add_row(cell(spec.name), "not calibrated", "-", "-")
            continue
        task = known[spec.name]
        limits = task.get("thresholds")
        reach = f", thresholds for {limits['precision']:g}" if limits else ""
        errors = (f"{task[key]:.4f}" for key in ("ece_before", "ece"))
        table.add_row(cell(spec.name), cell(f"{task['scores']['method']}{reach}"), *errors)
    return table


def _scope(description: Description) -> str:
    scope = description.calibration.get("scope")
    sources = [task["source"] for task in description.calibration.get("tasks", {}).values()]
    carried = bool(sources) and all(source.endswith(BEFORE_REFIT) for source in sources)
    return "\n".join(
        [
            *(["These are measured with the model before, too."] if carried else []),
            *([f"in_scope is about the classes of {printable(scope['task'])}"] if scope else []),
        ]
    )


def _versions(description: Description) -> Table:
    table = make_table(["package", "version"])
    for name, version in description.versions.items():
        table.add_row(cell(name), cell(version))
    return table


def _files(description: Description) -> Table:
    table = make_table(["file"], ["bytes"])
    for name, size in description.files.items():
        table.add_row(cell(name), f"{size:,}")
    return table
