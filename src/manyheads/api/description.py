"""What a model is, from its files alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manyheads.errors import counted, listing
from manyheads.storage import (
    Manifest,
    Reading,
    StrPath,
    embedding_size,
    read_manifest,
    resolve_model,
)
from manyheads.tasks import TaskSpec
from manyheads.tasks.metrics import numbers

_LABELS_SHOWN = 8


@dataclass(frozen=True, repr=False)
class Description:
    """A description of a model."""

    path: str
    kind: str
    tasks: tuple[TaskSpec, ...]
    encoder: Mapping[str, Any]
    metrics: Mapping[str, Any]
    """Metrics on the validation data, as `evaluate --json` writes them; empty for a checkpoint. A
    model that learned from all records has those of the model before (`before_refit`)."""
    versions: Mapping[str, str]
    files: Mapping[str, int]
    """Sizes in bytes."""
    config: Mapping[str, Any]
    """The configuration of the run that made the model."""
    calibration: Mapping[str, Any]
    """As the manifest has it; empty if scores are not calibrated."""
    manifest: Manifest | None = field(default=None, compare=False)
    """None for a checkpoint."""

    def __repr__(self) -> str:
        lines = [f"{self.path} ({self.kind})"]
        for spec in self.tasks:
            labels = listing(spec.labels, _LABELS_SHOWN)
            lines.append(f"  {spec.name}: {spec.kind}{f' ({labels})' if labels else ''}")
        if self.is_refitted:
            lines.append("  of the model before, which had not learned from all records:")
        for task, name, value in self.metric_rows():
            lines.append(f"  {task} {name}: {value:.4f}")
        return "\n".join(lines)

    @property
    def is_refitted(self) -> bool:
        """Whether the model learned from all records, and its metrics are those of another one."""
        return "before_refit" in self.metrics

    def metric_rows(self) -> list[tuple[str, str, float]]:
        """Return (task, metric, value) of each number among the metrics.

        Of a refitted model they are those of the model before.
        """
        metrics = self.metrics.get("before_refit", self.metrics)
        tasks = metrics.get("tasks")
        rows = [
            (task, name, value)
            for task, values in (tasks.items() if isinstance(tasks, Mapping) else ())
            if isinstance(values, Mapping)
            for name, value in numbers(values).items()
        ]
        frame = metrics.get("frame_accuracy")
        return [*rows, *([("all", "frame_accuracy", frame)] if isinstance(frame, float) else [])]

    def verify(self) -> None:
        """Compare a model folder's files with their checksums.

        Raises:
            ModelError: one is damaged or missing.
        """
        if self.manifest is not None:
            self.manifest.verify()

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


def describe(model: StrPath) -> Description:
    """Read the description of a model, without PyTorch if it is a model folder.

    Raises:
        ModelError: there is no such model, or its manifest is damaged.
    """
    path = resolve_model(model)
    return _of_checkpoint(path) if path.is_file() else _of_manifest(read_manifest(path))


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
        manifest=manifest,
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
