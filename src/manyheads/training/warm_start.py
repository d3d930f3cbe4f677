"""Warm starts: a run that starts from a trained model takes over its encoder and heads.

Heads of tasks that the configuration names continue to learn. All other tasks are carried: their
heads are not part of the model in training, cost nothing there, and are written unchanged to every
checkpoint and model folder. So adding a task keeps all others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from manyheads.config import (
    AUTO,
    Config,
    Strict,
    TaskConfig,
    colliding_tasks,
    fields_where,
    first_problem,
    stored_config,
)
from manyheads.config import WarmStart as WarmStartRole
from manyheads.data.readers import Layout
from manyheads.errors import ConfigError, ManyheadsError, RequestError, listing, nearest
from manyheads.inference.backends.pytorch import TrainedModel, load_trained
from manyheads.modeling import (
    HEADS,
    CheckpointContents,
    Encoder,
    HeadLayers,
    ModelContents,
    load_state,
    task_specs,
)
from manyheads.modeling.heads import Head
from manyheads.storage import read_manifest, resolve_model
from manyheads.tasks import LabelSet, TaskSpec, units_of
from manyheads.text import Units
from manyheads.training.kept_scope import KeptScope
from manyheads.training.refit import warn_if_learned

INHERITED = "inherited"
"""The checkpoint's key of the tasks whose heads continued to learn."""

CALIBRATIONS = "carried_calibrations"
"""The checkpoint's key of the carried tasks' calibrations."""

SCOPE = "carried_scope"
"""The checkpoint's key of the scope, if a carried task tells it."""


@dataclass(frozen=True)
class Carried:
    """The tasks of a trained model that are inherited unchanged."""

    tasks: Mapping[str, TaskConfig] = field(default_factory=dict)
    specs: tuple[Mapping[str, Any], ...] = ()
    """Each as `TaskSpec.to_json` writes it."""
    state: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    """Their heads' parameters, as `<task>.<parameter>`."""
    calibrations: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Those of their calibrations that the trained model has, as its manifest holds them."""
    scope: KeptScope | None = field(default=None, repr=False)
    """The trained model's scope, if one of them tells it."""

    def parameters(self) -> dict[str, Tensor]:
        """Return the parameters by their names in a whole model."""
        return {HEADS + name: tensor for name, tensor in self.state.items()}

    def joined_to(self, config: Config) -> Config:
        """Return a configuration with these tasks added."""
        return config.model_copy(update={"tasks": {**self.tasks, **config.tasks}})

    def added_to(self, contents: ModelContents) -> ModelContents:
        """Return a model folder's contents with these tasks added."""
        return replace(
            contents,
            tasks=[*self.specs, *contents.tasks],
            head_state={**self.state, **contents.head_state},
        )


@dataclass(frozen=True)
class WarmStart:
    """The parts that a run takes from a trained model beside its encoder; empty without one."""

    model_name: str = ""
    """The encoder that the trained model started from."""
    max_length: int = 0
    tasks: Mapping[str, TaskConfig] = field(default_factory=dict)
    """The trained model's settings of the tasks that continue to learn."""
    labels: Mapping[str, LabelSet] = field(default_factory=dict)
    """The labels of their heads."""
    heads: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict, repr=False)
    """The parameters of their heads; empty in a resumed run, whose checkpoint has newer ones."""
    head_layers: int | None = None
    """The number of layers that its heads have of their own."""
    layers: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    """The parameters of these layers; empty in a resumed run."""
    carried: Carried = Carried()

    @property
    def units(self) -> Units | None:
        """The units that carry tags in the trained model; None if it tags nothing."""
        carried = (TaskSpec.from_json(spec).label_set() for spec in self.carried.specs)
        sets = [*self.labels.values(), *carried]
        return units_of(sets) if any(labels.units for labels in sets) else None

    @classmethod
    def of_model(cls, trained: TrainedModel, config: Config) -> WarmStart:
        """Take over a trained model for a configuration; tasks that it does not name are
        carried."""
        old, model = trained.config, trained.model
        specs = {str(spec["name"]): spec for spec in task_specs(model)}
        taken = [name for name in config.tasks if name in specs]
        left = [name for name in specs if name not in config.tasks]
        known, scope = {}, None
        if trained.manifest is not None:
            known = trained.manifest.calibration.get("tasks", {})
            told = KeptScope.of_model(
                trained.manifest, list(map(TaskSpec.from_json, specs.values()))
            )
            scope = told if told is not None and told.scope.task in left else None
        return cls(
            model_name=old.model_name,
            max_length=trained.max_length,
            tasks={name: old.tasks[name] for name in taken},
            labels={name: model.head(name).labels for name in taken},
            heads={name: model.head(name).state_dict() for name in taken},
            head_layers=old.head_layers,
            layers={} if model.head_layers is None else model.head_layers.state_dict(),
            carried=Carried(
                {name: _carried(old, name) for name in left},
                tuple(specs[name] for name in left),
                {
                    f"{name}.{key}": tensor
                    for name in left
                    for key, tensor in model.head(name).state_dict().items()
                },
                {name: known[name] for name in left if name in known},
                scope,
            ),
        )

    @classmethod
    def of_checkpoint(cls, found: CheckpointContents) -> WarmStart:
        """Restore what a run took over from its own checkpoint alone."""
        config = stored_config(found.config)
        taken = found.training.get(INHERITED, [])
        carried = {name: task for name, task in config.tasks.items() if task.carried}
        specs = {str(spec["name"]): spec for spec in found.tasks}
        return cls(
            model_name=config.model_name,
            max_length=found.encoder.max_length,
            head_layers=config.head_layers,
            tasks={name: config.tasks[name] for name in taken},
            labels={name: TaskSpec.from_json(specs[name]).label_set() for name in taken},
            carried=Carried(
                carried,
                tuple(specs[name] for name in carried),
                {
                    name.removeprefix(HEADS): tensor
                    for name, tensor in found.model.items()
                    if name.startswith(tuple(f"{HEADS}{task}." for task in carried))
                },
                _calibrations(found, config, carried),
                KeptScope.of_state(found.training.get(SCOPE)),
            ),
        )

    def complete(self, config: Config) -> Config:
        """Fill in the settings that a configuration leaves to the trained model.

        Settings that are given explicitly stay as they are.
        """
        if config.init_from is None:
            return config
        update: dict[str, Any] = {
            key: getattr(self, key)
            for key in _settings(Config, "inherited", "fixed")
            if key not in config.model_fields_set
        }
        tasks = {
            name: _completed(task, self.tasks[name]) if name in self.tasks else task
            for name, task in config.tasks.items()
        }
        return config.model_copy(update={**update, "tasks": tasks})

    def load_into(self, heads: Mapping[str, Head], layers: HeadLayers | None) -> None:
        """Load the trained parameters into new heads and the heads' own layers.

        Raises:
            ModelError: they do not fit.
        """
        for name, state in self.heads.items():
            load_state(heads[name], state, "init_from")
        if layers is not None and self.layers:
            load_state(layers, self.layers, "init_from")

    def freezes_layers(self, config: Config) -> bool:
        """Return whether the heads' own layers are frozen, because a head that reads them is."""
        return bool(self.carried.tasks) or any(task.frozen for task in config.tasks.values())


def _calibrations(
    found: CheckpointContents, config: Config, carried: Iterable[str]
) -> Mapping[str, Any]:
    """Return the calibrations of carried tasks."""
    if CALIBRATIONS in found.training:
        kept: Mapping[str, Any] = found.training[CALIBRATIONS]
        return kept
    # Checkpoints of earlier versions lack them.
    try:
        known = read_manifest(resolve_model(str(config.init_from))).calibration.get("tasks", {})
    except ManyheadsError:
        # The run began with a checkpoint, which has none, or the model is gone.
        return {}
    return {name: known[name] for name in carried if name in known}


def _completed(task: TaskConfig, trained: TaskConfig) -> TaskConfig:
    return task.model_copy(
        update={
            key: getattr(trained, key)
            for key in _settings(TaskConfig, "inherited", "fixed")
            if key not in task.model_fields_set or getattr(task, key) == AUTO
        }
    )


def _settings(section: type[Strict], *roles: WarmStartRole) -> tuple[str, ...]:
    """Return the settings with some roles in a warm start."""
    return fields_where(section, lambda setting: setting.warm_start in roles)


def load_warm_start(config: Config, report: Callable[[str], None]) -> tuple[Encoder, WarmStart]:
    """Load the trained model that a configuration starts from.

    Args:
        config: with `init_from`.
        report: receives messages for the user.

    Returns:
        its encoder, and what else is taken over.

    Raises:
        ModelError: there is no such model, or it is damaged.
        ConfigError: the configuration contradicts the model.
        RequestError: the run would replace the model.
    """
    path = resolve_model(str(config.init_from))
    if Path(config.save_dir).resolve() in path.resolve().parents:
        raise RequestError(
            f"`init_from` ({path}) lies in `save_dir` ({config.save_dir}), where a new run "
            "replaces what is there",
            fix="Choose another `save_dir`.",
        )
    trained = load_trained(path)
    _check(config, trained)
    start = WarmStart.of_model(trained, config)
    _check_tasks(start.complete(config), trained, path)
    report(_described(config, path, list(start.tasks), list(start.carried.tasks)))
    if start.tasks:
        warn_if_learned("the model in `init_from`", trained.config, report)
    if config.max_length != trained.max_length and "max_length" in config.model_fields_set:
        report(
            f"warning: `max_length` is {config.max_length} and was {trained.max_length} in the "
            "trained model: texts longer than either are read in other windows than before, so "
            "their predictions change."
        )
    return trained.model.encoder, start


def _carried(config: Config, name: str) -> TaskConfig:
    """Return a trained model's settings of a task that is not trained any more."""
    task = config.tasks[name]
    values = task.model_dump(exclude=set(_settings(TaskConfig, "training")))
    valid_file = task.valid_file or (None if task.carried else config.valid_file)
    if config.refit is not None:  # the task has learned from these records
        valid_file = None
    values |= {"valid_file": valid_file, "carried": True}
    if valid_file is not None:
        values |= dict.fromkeys(fields_where(TaskConfig, lambda setting: setting.layout))
        values |= Layout.of(config).of_file(valid_file).settings()
    return TaskConfig.model_validate(values)


def _described(config: Config, path: Path, taken: list[str], left: list[str]) -> str:
    new = [name for name in config.tasks if name not in taken]
    parts = [
        f"{what} heads: {listing(names, 20)}"
        for what, names in (
            ("continuing", taken),
            ("new", new),
            ("unchanged", left),
        )
        if names
    ]
    return f"Starting from {path}: {'; '.join(parts)}."


def _check(config: Config, trained: TrainedModel) -> None:
    """Check that a configuration's encoder is the trained model's.

    Raises:
        ConfigError: it is another.
    """
    old = trained.config.model_name
    named = "model_name" in config.model_fields_set
    if named and Path(config.model_name).name != Path(old).name:
        raise ConfigError(
            f"`model_name` is {config.model_name}, but the model in `init_from` started from "
            f"{old}, whose encoder this run starts from",
            fix="Leave `model_name` out, or start without `init_from`.",
        )
    layers = trained.config.head_layers
    if "head_layers" in config.model_fields_set and config.head_layers != layers:
        raise ConfigError(
            f"`head_layers` is {config.head_layers}, but the heads of the model in `init_from` "
            f"were trained with {layers or 'none'}",
            fix="Leave `head_layers` out.",
        )
    # The run's own settings were checked before.
    problem = first_problem(config.model_copy(update={"head_layers": layers}), stored=True)
    if problem is not None:
        raise ConfigError(f"the model in `init_from` has layers for its heads: {problem}")
    pooling = trained.model.encoder.pooling.mode
    if config.pooling not in ("auto", pooling):
        raise ConfigError(
            f"`pooling` is {config.pooling}, but the model in `init_from` was trained with "
            f"{pooling}, which its heads and its embedding depend on",
            fix="Leave `pooling` out.",
        )


def _check_tasks(config: Config, trained: TrainedModel, path: Path) -> None:
    """Check that the trained model has the heads that a completed configuration takes over.

    Raises:
        ConfigError: it lacks a frozen one, a head is another than the configuration describes, or
            a new task would share a column of results with one of the model.
    """
    known = [str(spec["name"]) for spec in task_specs(trained.model)]
    problem = colliding_tasks([*known, *config.tasks])
    if problem and not colliding_tasks(known):
        raise ConfigError(f"with the model in `init_from` ({path}), {problem}")
    for name, task in config.tasks.items():
        if name in known:
            _check_task(name, task, trained.config.tasks[name], path)
        elif task.frozen:
            raise ConfigError(
                f"`tasks.{name}.frozen` is true, but the model in `init_from` ({path}) has no "
                f"task {name!r}{nearest(name, known)}, and a new head has learned nothing yet",
                expected=f"one of its tasks: {listing(known)}",
                fix="Correct the name, or train the head.",
            )


def _check_task(name: str, task: TaskConfig, trained: TaskConfig, path: Path) -> None:
    """Check that a task's trained head is the one that the configuration describes.

    Raises:
        ConfigError: it is another; the error names the setting and both values.
    """
    for key in _settings(TaskConfig, "fixed"):
        wanted, present = _shown(getattr(task, key)), _shown(getattr(trained, key))
        if wanted != present:
            hint = f"leave `{key}` out" if key != "kind" else f"set `{key}` to {present}"
            raise ConfigError(
                f"`tasks.{name}.{key}` is {wanted}, but the head of this name in `init_from` "
                f"({path}) was trained with {present}",
                fix=f"To continue with that head, {hint}; for a new head, use another task name.",
            )


def _shown(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def refuse_carried(config: Config) -> None:
    """Refuse settings that only a trained model may have.

    Raises:
        ConfigError: a task is marked as carried.
    """
    for name, task in config.tasks.items():
        if task.carried:
            raise ConfigError(
                f"`tasks.{name}.carried` is true, which only a trained model may set",
                fix=f"Leave {name!r} out of `tasks`: with `init_from`, tasks that it does not name "
                "are kept unchanged.",
            )
