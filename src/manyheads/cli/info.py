"""`manyheads info`: describes a model from its files, without a deep-learning framework."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from manyheads.cli.options import DEFAULT_MODEL, JsonFile, write_json_to
from manyheads.errors import counted
from manyheads.storage import Manifest, Reading, embedding_size, read_manifest, resolve_model
from manyheads.tasks import TaskSpec, kind_of
from manyheads.tasks.metrics import numbers

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Description:
    """A description of a model."""

    path: str
    kind: str
    tasks: tuple[TaskSpec, ...]
    encoder: Mapping[str, Any]
    metrics: Mapping[str, Any]
    """Metrics on the validation data, as `evaluate --json` writes them; empty for a checkpoint."""
    versions: Mapping[str, str]
    files: Mapping[str, int]
    """Sizes in bytes."""
    config: Mapping[str, Any]
    """The configuration of the run that made the model."""
    calibration: Mapping[str, Any]
    """As the manifest has it; empty if scores are not calibrated."""

    def to_json(self) -> dict[str, Any]:
        """Return the description as `info --json` writes it."""
        return {
            "path": self.path,
            "kind": self.kind,
            "tasks": {spec.name: spec.to_json() for spec in self.tasks},
            "encoder": dict(self.encoder),
            "metrics": dict(self.metrics),
            "versions": dict(self.versions),
            "files": dict(self.files),
            "config": dict(self.config),
            "calibration": dict(self.calibration),
        }


@app.command()
def info(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A model folder, the folder of a run (its best model) or a .pt checkpoint.",
        ),
    ] = DEFAULT_MODEL,
    *,
    json_file: JsonFile = None,
) -> None:
    """Show the tasks, labels, metrics, versions and files of a model.

    Also checks that its files are intact; if not, the exit status is 2.
    """
    path = resolve_model(model)
    manifest = None if path.is_file() else read_manifest(path)
    description = _of_checkpoint(path) if manifest is None else _of_manifest(manifest)
    if json_file != "-":
        _show(description)
    if manifest is not None:
        manifest.verify()
    write_json_to(json_file, description.to_json())


def _of_manifest(manifest: Manifest) -> Description:
    return Description(
        path=os.fspath(manifest.folder),
        kind="model folder",
        tasks=tuple(TaskSpec.from_json(task) for task in manifest.tasks),
        encoder={
            "pooling": manifest.pooling,
            "normalize": manifest.normalize,
            "max_length": manifest.max_length,
            "hidden_size": manifest.hidden_size,
            **_embedding(manifest.reading, manifest.embedding_size),
        },
        metrics=manifest.metrics,
        versions=manifest.versions,
        files={name: stored.size for name, stored in manifest.files.items()},
        config=manifest.config,
        calibration=manifest.calibration,
    )


def _of_checkpoint(path: Path) -> Description:
    from manyheads.modeling import load_checkpoint

    contents = load_checkpoint(path)
    return Description(
        path=os.fspath(path),
        kind=f"checkpoint, {counted(contents.epoch, 'epoch')} and {counted(contents.step, 'step')}",
        tasks=tuple(TaskSpec.from_json(task) for task in contents.tasks),
        encoder={
            "pooling": contents.encoder.pooling,
            "normalize": contents.encoder.normalize,
            "max_length": contents.encoder.max_length,
            "hidden_size": contents.encoder.hidden_size,
            **_embedding(
                contents.encoder.reading,
                embedding_size(
                    contents.encoder.hidden_size, contents.encoder.pooling, contents.encoder.dense
                ),
            ),
        },
        metrics={},
        versions={"manyheads": contents.manyheads_version},
        files={path.name: path.stat().st_size},
        config=contents.config,
        calibration={},
    )


def _embedding(reading: Reading, size: int) -> dict[str, Any]:
    """Return the size of the embedding, what it reads of a text, and how embeddings compare."""
    return {
        "embedding_size": size,
        "embedding_max_length": reading.max_length,
        "prompts": dict(reading.prompts),
        "default_prompt": reading.default_prompt_name,
        "similarity": reading.similarity,
    }


def _show(description: Description) -> None:
    from manyheads.display.tables import Section, cell, make_table, printable, show

    tasks = make_table(["task", "kind", "decoder"], ["labels"])
    for spec in description.tasks:
        tasks.add_row(
            cell(spec.name), cell(spec.kind), cell(spec.decoder or "-"), f"{len(spec.labels):,}"
        )
    encoder = make_table(["setting", "value"])
    for name, value in {
        **description.encoder,
        "from": description.config.get("model_name"),
    }.items():
        if value not in (None, {}):
            pairs = value.items() if isinstance(value, Mapping) else ()
            shown = ", ".join(f"{key}: {text!r}" for key, text in pairs)
            encoder.add_row(cell(name), cell(shown or value))
    metrics = make_table(["task", "metric"], ["on validation"])
    for task, name, value in _metric_rows(description.metrics):
        metrics.add_row(cell(task), cell(name), f"{value:.4f}")
    versions = make_table(["package", "version"])
    for name, version in description.versions.items():
        versions.add_row(cell(name), cell(version))
    files = make_table(["file"], ["bytes"])
    for name, size in description.files.items():
        files.add_row(cell(name), f"{size:,}")
    labels = [
        f"{spec.name}: {', '.join(printable(label) for label in spec.labels)}"
        for spec in description.tasks
    ]
    trust = make_table(["task", "scores"], ["error before", "error after"])
    known = description.calibration.get("tasks", {})
    for spec in (spec for spec in description.tasks if kind_of(spec.kind).calibrates):
        if spec.name not in known:
            trust.add_row(cell(spec.name), "not calibrated", "-", "-")
            continue
        task = known[spec.name]
        limits = task.get("thresholds")
        how = f"{task['scores']['method']}" + (
            f", thresholds for {limits['precision']:g}" if limits else ""
        )
        errors = (f"{task[key]:.4f}" for key in ("ece_before", "ece"))
        trust.add_row(cell(spec.name), cell(how), *errors)
    tables = {
        f"{description.path} ({description.kind})": tasks,
        "Encoder": encoder,
        "Metrics": metrics,
        "Calibration of scores": trust,
        "Made with": versions,
        "Files": files,
    }
    notes = {id(tasks): "\n".join(labels)}
    if scope := description.calibration.get("scope"):
        notes[id(trust)] = f"in_scope is about the classes of {printable(scope['task'])}"
    show(
        Section(title, table, notes.get(id(table), ""))
        for title, table in tables.items()
        if table.row_count
    )


def _metric_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    tasks = metrics.get("tasks")
    for task, values in tasks.items() if isinstance(tasks, Mapping) else ():
        if isinstance(values, Mapping):
            for name, value in numbers(values).items():
                yield task, name, value
    frame = metrics.get("frame_accuracy")
    if isinstance(frame, float):
        yield "all", "frame_accuracy", frame
