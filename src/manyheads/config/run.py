"""The configuration of a run: all sections, and what follows from several settings together."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationInfo, model_validator

from manyheads.config.checks import first_problem
from manyheads.config.sections import (
    Data,
    Encoder,
    Hardware,
    Mixing,
    Optimisation,
    Saving,
    Selection,
    Transfer,
)
from manyheads.config.sections.mixing import is_stored
from manyheads.config.task import TaskConfig
from manyheads.errors import ConfigError
from manyheads.tasks import kind_of

BATCH_TOKENS = 512
"""Default sub-tokens of a batch in prediction, padding included. Larger batches are slower on
CPUs."""

ALIASES = {"lr": "learning_rate", "epochs": "num_epochs", "checkpoint_dir": "save_dir"}
"""Other names of fields, in flags and files."""


# The last section comes first among the fields: pydantic reads the base classes from the right.
class Config(Hardware, Saving, Selection, Transfer, Mixing, Optimisation, Encoder, Data):
    """The configuration of a training run."""

    @model_validator(mode="after")
    def _default_tasks(self) -> Config:
        if not self.tasks:
            standard = standard_tasks(self.num_classes, self.num_ner_labels)
            tasks = {name: TaskConfig(**task) for name, task in standard.items()}
            object.__setattr__(self, "tasks", tasks)
        return self

    @model_validator(mode="after")
    def _settings_go_together(self, info: ValidationInfo) -> Config:
        problem = first_problem(self, stored=is_stored(info))
        if problem is not None:
            raise ValueError(problem)
        return self

    @property
    def epochs(self) -> int:
        """The number of epochs, once it is not `auto`."""
        assert isinstance(self.num_epochs, int), "training must decide the number first"
        return self.num_epochs

    @property
    def encoder_is_frozen(self) -> bool:
        """Whether no part of the encoder is ever trained."""
        return self.freeze == "encoder" and self.unfreeze_every is None

    @property
    def pair_tasks(self) -> tuple[str, ...]:
        """The tasks that train the sentence embedding directly."""
        pairs = (n for n, t in self.tasks.items() if not kind_of(t.kind).answers and not t.carried)
        return tuple(pairs)

    @property
    def frozen_tasks(self) -> tuple[str, ...]:
        """The tasks whose heads are not trained."""
        return tuple(name for name, task in self.tasks.items() if task.frozen)

    @property
    def idle_tasks(self) -> frozenset[str]:
        """The tasks whose records train nothing, because their heads and the encoder are frozen.

        They are still validated.
        """
        return frozenset(self.frozen_tasks if self.encoder_is_frozen else ())

    @property
    def unvalidated_tasks(self) -> tuple[str, ...]:
        """The tasks without validation data, for which a part of their records is held out."""
        if self.valid_file is not None:
            return ()
        own = (n for n, t in self.tasks.items() if t.valid_file is None and not t.carried)
        return tuple(own)

    def train_files(self) -> dict[str, tuple[str, ...]]:
        """Return the training files, each with the tasks that learn from it."""
        return self._files("train_file")

    def valid_files(self) -> dict[str, tuple[str, ...]]:
        """Return the validation files, each with the tasks it validates.

        A carried task has those of the model that it comes from.
        """
        return self._files("valid_file")

    def _files(self, key: str) -> dict[str, tuple[str, ...]]:
        files: dict[str, tuple[str, ...]] = {}
        for name, task in self.tasks.items():
            path = getattr(task, key) or (None if task.carried else getattr(self, key))
            if path is None and task.carried:
                continue
            if path is None:
                raise ConfigError(
                    f"task {name!r} has no {key.replace('_', ' ')}",
                    fix=f"Set `{key}` or `tasks.{name}.{key}`.",
                )
            files[path] = (*files.get(path, ()), name)
        return files


def standard_tasks(num_classes: Any, num_ner_labels: Any) -> dict[str, Any]:
    """Return the tasks that the flat keys stand for."""
    return {
        "classification": {"kind": "classification", "num_labels": num_classes},
        "ner": {"kind": "tagging", "num_labels": num_ner_labels},
    }
