"""The searches behind `suspects`, `select` and `report`: suspect labels, texts to label, curves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from manyheads.config import Config, TaskConfig, load_config, restored_threads
from manyheads.data.hold_out import LAYOUT
from manyheads.data.json_lines import json_line
from manyheads.data.readers import Layout, read_rows
from manyheads.data.records import discover_labels
from manyheads.data.starting_config import starting_config
from manyheads.data.suspects import (
    Suspect,
    Suspects,
    read_suspects,
    write_fixed,
    write_label_studio,
    write_suspects,
)
from manyheads.errors import RequestError, listing, option
from manyheads.storage import StrPath, atomic_file, require_folder

if TYPE_CHECKING:
    from manyheads.display import Counter
    from manyheads.evaluation.report.curve import MeasureCurves
    from manyheads.evaluation.report.verb import FindSuspects
    from manyheads.evaluation.selection import Selection
    from manyheads.inference import Runtime
    from manyheads.training.progress import Progress


def search(
    path: str,
    config: Config | None,
    tasks: Mapping[str, TaskConfig] | None,
    layout: Layout | None,
    settings: Mapping[str, Any],
    *,
    count: int | None = None,
    out: StrPath | None = None,
    label_studio: StrPath | None = None,
    fix: StrPath | None = None,
    progress: Progress | None = None,
) -> Suspects:
    """Find the suspect labels of a file, and write what is asked for.

    Args:
        path: the file, or the name of records in memory.
        config: names tasks and encoder.
        tasks: the tasks; default, those of the configuration, or what the data show.
        layout: how the file is laid out.
        settings: configuration fields, None where not given.
        count: suspects to return at most.
        out: where to write lines to review.
        label_studio: where to write tasks for Label Studio.
        fix: where to write the data with the proposals in place.
        progress: shows the progress.

    Raises:
        ManyheadsError: the data, a setting or the encoder cannot be used.
    """
    from manyheads.training.suspects import find_suspects

    for target in (out, label_studio, fix):
        _check_target(path, target)
    chosen = _config(path, config, tasks, layout, settings)
    found = find_suspects(path, chosen, count=count, progress=progress)
    used = Layout.of(chosen)
    if out is not None:
        write_suspects(found, out)
    if label_studio is not None:
        write_label_studio(path, label_studio, found.suspects, chosen.tasks, used)
    if fix is not None:
        write_fixed(path, fix, found.suspects, chosen.tasks, used)
    return found


def suspect_progress(shown: bool = True) -> Progress:
    """Return what begins to show the progress of a search for suspect labels."""
    from manyheads.display import Counter

    return lambda total: Counter("Looking for wrong labels", total, "records", enabled=shown)


def find_suspects(progress: bool = True) -> FindSuspects:
    """Return what finds a report's suspect labels, with the tasks and encoder of its run."""
    from manyheads.training.suspects import find_suspects

    return partial(find_suspects, progress=suspect_progress(progress))


def measure_curves(progress: bool = True) -> MeasureCurves:
    """Return what measures a report's learning curves."""
    from manyheads.display import Counter
    from manyheads.training.learning_curve import measure_curves

    return partial(
        measure_curves,
        progress=lambda total: Counter("Learning curve", total, "trainings", enabled=progress),
    )


@restored_threads()
def chosen_texts(
    pool: str,
    model: StrPath,
    count: int,
    *,
    tasks: Sequence[str] | None,
    layout: Layout | None,
    seed: int,
    out: StrPath | None,
    runtime: Runtime,
    progress: Callable[[], Counter],
) -> Selection:
    """Choose the texts of a pool to label next, and write them as JSON lines.

    Args:
        pool: the file, or the name of records in memory.
        model, count, tasks, layout, seed: see `manyheads.evaluation.select`.
        out: where to write them; None for nowhere.
        runtime: what runs the model.
        progress: begins to show progress.

    Raises:
        ManyheadsError: the model or the pool cannot be used.
    """
    from manyheads.evaluation.selection import select
    from manyheads.inference import load_model

    _check_target(pool, out)
    loaded = load_model(model, runtime)
    with progress() as shown:
        found = select(
            loaded, pool, count, tasks=tasks, layout=layout, seed=seed, advance=shown.advance
        )
    if out is not None:
        with atomic_file(out) as stream:
            stream.writelines(json_line(record) for record in found.records())
    return found


def fix_labels(
    path: str,
    target: StrPath | None,
    reviewed: StrPath,
    config: Config | None,
    tasks: Mapping[str, TaskConfig] | None,
    layout: Layout | None,
    searching: Mapping[str, Any],
) -> tuple[Suspects, int]:
    """Write a file's records with reviewed proposals in place.

    Args:
        path: the file, or the name of records in memory.
        target: the new file.
        reviewed: the reviewed lines.
        config: names the tasks.
        tasks: the tasks; default, those of the configuration, or what the data show.
        layout: how the file is laid out.
        searching: the options of a search by name, which have no effect here unless they say how
            the file is laid out; None where not given.

    Returns:
        the reviewed proposals, and how many records changed.

    Raises:
        RequestError: no new file is named, it is the file itself, or an option has no effect.
        DataError: a proposal does not fit the file.
    """
    layouts = {name: value for name, value in searching.items() if name in LAYOUT}
    without_effect = [
        option(f"--{name.replace('_', '-')}")
        for name, value in searching.items()
        # The seed has its default where it was not given.
        if name not in LAYOUT and value is not None and (name, value) != ("seed", 0)
    ]
    if without_effect:
        raise RequestError(
            f"{option('--reviewed')} with {listing(without_effect)}",
            expected=f"one or the other: {option('--reviewed')} applies your lines, and looks for "
            "no suspects",
            fix=f"Leave out {listing(without_effect)}.",
        )
    if target is None:
        raise RequestError(
            f"{option('--reviewed')} without {option('--fix')}",
            fix=f"Name the new file: {option('--fix FILE')}.",
        )
    _check_target(path, target)
    chosen = _config(path, config, tasks, layout, layouts)
    used, proposals = Layout.of(chosen), tuple(read_suspects(reviewed))
    changed = write_fixed(path, target, proposals, chosen.tasks, used)
    records = sum(1 for _ in read_rows(path, layout=used))
    kinds = {name: task.kind for name, task in chosen.tasks.items()}
    new = _new_labels(path, proposals, chosen.tasks, used)
    notes = (f"not a label of {path} before: {listing(new)}",) if new else ()
    return Suspects(path, records, kinds, proposals, notes), changed


def _new_labels(
    path: str, proposals: Iterable[Suspect], tasks: Mapping[str, TaskConfig], layout: Layout
) -> list[str]:
    """Return the proposed labels that a file does not have, which may be misspelt."""
    proposed: dict[str, set[str]] = {}
    for one in proposals:
        if one.proposed is not None:
            label = one.proposed["label"] if isinstance(one.proposed, Mapping) else one.proposed
            proposed.setdefault(one.task, set()).add(str(label))
    known = discover_labels({name: tasks[name] for name in proposed}, [path], layout)
    new = set()
    for name, labels in proposed.items():
        new |= labels.difference(known[name].record_names)
    return sorted(new)


def _config(
    path: str,
    config: Config | None,
    tasks: Mapping[str, TaskConfig] | None,
    layout: Layout | None,
    settings: Mapping[str, Any],
) -> Config:
    given: dict[str, Any] = {k: v for k, v in settings.items() if v is not None}
    if layout is not None:
        given.update(layout.settings())
    if tasks is not None:
        given["tasks"] = {n: task.model_dump(exclude_unset=True) for n, task in tasks.items()}
    if config is None:
        return starting_config([path], given)[0]
    fields = config.model_dump(exclude_unset=True)
    if layout is not None:
        fields = {name: value for name, value in fields.items() if name not in LAYOUT}
    return load_config(None, {**fields, **given}, stored=True)


def _check_target(path: str, target: StrPath | None) -> None:
    """Refuse to write over the data, or where there is no folder.

    Raises:
        RequestError: a file would be written over itself.
        StorageError: the file's folder does not exist.
    """
    if target is None:
        return
    require_folder(target)
    if os.path.realpath(path) == os.path.realpath(target):
        raise RequestError(
            f"{path} would be written over itself", expected="a new file", fix="Name another one."
        )
