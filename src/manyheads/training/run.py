"""A training run: its parts, and how it is evaluated, saved and restored."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manyheads.config import Config
from manyheads.data.records import Record
from manyheads.errors import at
from manyheads.evaluation import REFERENCE, Outcomes, Reference, score
from manyheads.inference import Backend, Predictor, Watched
from manyheads.inference.backends.pytorch import predictor_of_model
from manyheads.modeling import (
    ADAPTERS,
    CheckpointContents,
    Compute,
    Freezing,
    MultiTaskModel,
    adapter_state,
    encoder_files,
    epoch_path,
    load_state,
    model_contents,
    plain_state,
    prune,
    save_checkpoint,
    save_model_folder,
    step_path,
    task_specs,
    with_adapters,
)
from manyheads.storage import BEST
from manyheads.tasks.metrics import DriftMetrics, Evaluation
from manyheads.text import Batch, Floats, TextTokenizer
from manyheads.training.balancing import Balancer
from manyheads.training.batch_reader import BatchReader
from manyheads.training.data.schedules import Schedule, steps_per_epoch
from manyheads.training.data.training_data import TrainingData
from manyheads.training.distributed import ALONE, Processes
from manyheads.training.in_flight import InFlightStep
from manyheads.training.metrics_log import MetricsLog
from manyheads.training.optimizer import AdamW
from manyheads.training.refit import STATE as BEFORE
from manyheads.training.refit import Earlier
from manyheads.training.state import TrainingState, check_same_run, not_finite
from manyheads.training.terms import LossTerm
from manyheads.training.warm_start import CALIBRATIONS, INHERITED, SCOPE, WarmStart

_SECONDS = {"s": 1, "m": 60, "h": 3600}


class Clock:
    """Measures the time since the last line of the log, and since the last save."""

    def __init__(self) -> None:
        self._lap = self._save = time.monotonic()

    def lap(self) -> float:
        """Return the seconds since the last call."""
        now = time.monotonic()
        elapsed, self._lap = now - self._lap, now
        return elapsed

    def saved(self) -> None:
        """Restart the time since the last save."""
        self._save = time.monotonic()

    def since_save(self) -> float:
        """Return the seconds since the state was last saved."""
        return time.monotonic() - self._save


class _Evaluated(Watched):
    """The backend of an evaluation after a step.

    Raises:
        TrainingError: an output is not finite.
    """

    def __init__(self, backend: Backend, before_batch: Callable[[], None], step: int) -> None:
        super().__init__(backend, before_batch)
        self._step = step

    def run(self, batch: Batch) -> Mapping[str, Floats]:
        """Call the function, then compute every head's logits and the embedding."""
        outputs = super().run(batch)
        if not all(np.isfinite(values).all() for values in outputs.values()):
            raise not_finite("the model's outputs", self._step)
        return outputs


@dataclass
class Run:
    """All parts of a training run."""

    config: Config
    save_dir: Path
    data: TrainingData
    model: MultiTaskModel
    tokenizer: TextTokenizer
    max_length: int
    compute: Compute
    optimizer: AdamW
    freezing: Freezing
    """Determines which part of the model is trained at a step."""
    balancer: Balancer
    """Weights the tasks, and owns the backward pass."""
    warm_start: WarmStart
    """The parts taken from the trained model in `init_from`; empty without one."""
    reader: BatchReader
    """Computes the model's outputs for a batch."""
    terms: Sequence[LossTerm] = ()
    """Losses beside the tasks' own."""
    reference: Reference | None = None
    """The original encoder's embeddings of some validation sentences, to measure drift."""
    drift_of_frozen: DriftMetrics | None = None
    """Cached drift of a fully frozen encoder."""
    in_flight: list[InFlightStep] = field(default_factory=list)
    """Submitted steps whose results have not been read yet."""
    processes: Processes = ALONE
    """The processes that train the model together."""
    earlier: Earlier | None = None
    """The model of the run that is repeated on all of its records, with `refit`."""
    outcomes: Outcomes | None = None
    """Of the epoch's evaluation, with evidence for calibration; None in the other processes, and
    once the epoch has ended."""
    best_evidence: Outcomes | None = None
    """What the best model's calibration is fitted on, if its evaluation was made in this session
    and process."""
    state: TrainingState = field(default_factory=TrainingState)
    clock: Clock = field(default_factory=Clock)

    @property
    def saved_config(self) -> Config:
        """The configuration with the carried tasks, as checkpoints and models hold it."""
        return self.warm_start.carried.joined_to(self.config)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch."""
        return steps_per_epoch(self.data.sources, Schedule.of(self.config))

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.config.epochs * self.steps_per_epoch

    def trained(self) -> list[torch.nn.Parameter]:
        """Return the optimiser's parameters."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def go_to(self, step: int) -> None:
        """Unfreeze what is trained from this optimiser step on."""
        self.freezing.go_to(step)
        self.reader = self.reader.at_depth(self.freezing.depth)

    def evaluate(self, before_batch: Callable[[], None] = lambda: None) -> Evaluation:
        """Score the model in its current state on the validation data, in float32.

        Args:
            before_batch: called before each batch; an exception from it ends the evaluation.
        """
        exact = replace(self.compute, precision="float32")
        predictor = predictor_of_model(self.model, exact, self.tokenizer, self.max_length)
        backend = self.reader.evaluation_backend(predictor.backend)
        predictor.backend = _Evaluated(backend, before_batch, self.state.step)
        self.outcomes = score(predictor, self.validation_sets(), evidence=True)
        evaluation = self.outcomes.evaluation()
        if self.reference is not None:
            evaluation["drift"] = self._drift(predictor, self.reference)
        return evaluation

    def validation_sets(self) -> list[tuple[Sequence[Record], Sequence[str]]]:
        """Return the validation records, each set with the tasks that it validates."""
        return [(part.records, part.tasks) for part in self.data.validation]

    def validation_counts(self) -> dict[str, int]:
        """Return each task's number of validation records."""
        counts = dict.fromkeys(self.config.tasks, 0)
        for part in self.data.validation:
            for task in part.tasks:
                counts[task] += sum(task in record.labels for record in part.records)
        return counts

    def _drift(self, predictor: Predictor, reference: Reference) -> DriftMetrics:
        """Measure the embedding's drift; only once while the whole encoder is frozen."""
        if not self.freezing.is_whole:
            return reference.drift(predictor)
        if self.drift_of_frozen is None:
            self.drift_of_frozen = reference.drift(predictor)
        return self.drift_of_frozen

    def save_is_due(self) -> bool:
        """Return whether a checkpoint within the epoch is due at this step."""
        every = self.config.checkpoint_every
        if every is None:
            return False
        if isinstance(every, int):
            return self.state.step % every == 0
        return self.clock.since_save() >= int(every[:-1]) * _SECONDS[every[-1]]

    def save_step(self, log: MetricsLog) -> Path:
        """Save the state within an epoch, replacing any earlier such checkpoint."""
        path = step_path(self.save_dir, self.state.step)
        self._save(path, log)
        return path

    def save_epoch(self, log: MetricsLog) -> Path:
        """Save the state at the end of an epoch."""
        path = epoch_path(self.save_dir, self.state.epoch)
        self._save(path, log)
        return path

    def _save(self, path: Path, log: MetricsLog) -> None:
        if self.processes.is_first:
            self.state.log_bytes = log.sync()
            save_checkpoint(path, self.contents())
            prune(self.save_dir, self.config.keep_checkpoints)
        self.clock.saved()

    def least_bytes(self) -> int:
        """Return the bytes that a checkpoint has at least.

        Those are the parameters, and AdamW's two means of each one that is trained now.
        """
        trained = sum(p.nbytes for p in self.trained() if p.requires_grad)
        return sum(p.nbytes for p in self.model.parameters()) + 2 * trained

    def contents(self) -> CheckpointContents:
        """Return the contents of a checkpoint of the current state."""
        return CheckpointContents(
            config=self.saved_config.model_dump(mode="json"),
            tasks=[*self.warm_start.carried.specs, *task_specs(self.model)],
            encoder=encoder_files(self.model.encoder, self.max_length),
            model={**plain_state(self.model), **self.warm_start.carried.parameters()},
            training={
                "state": self.state.to_dict(),
                "optimizer": self.optimizer.state_dict(),
                "balancing": dict(self.balancer.state_dict()),
                "data": self.data.fingerprint,
                "precision": self.compute.precision,
                "threads": self.compute.threads,
                **self._optional_state(),
            },
            epoch=self.state.epoch,
            step=self.state.step,
        )

    def _optional_state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the parts that not every run has."""
        state: dict[str, Any] = {}
        if self.config.init_from is not None:
            state[INHERITED] = list(self.warm_start.tasks)
            carried = self.warm_start.carried
            state[CALIBRATIONS] = dict(carried.calibrations)
            state[SCOPE] = carried.scope and carried.scope.state()
        if self.config.lora is not None:
            state[ADAPTERS] = adapter_state(self.model)
        for term in self.terms:
            state |= term.state()
        if self.reference is not None:
            state[REFERENCE] = reference_values(self.reference)
        if self.earlier is not None:
            state[BEFORE] = self.earlier.state()
        return state

    def restore(self, contents: CheckpointContents) -> None:
        """Restore the state of a checkpoint.

        Raises:
            RequestError: it has another configuration or other data.
            ModelError: its parameters do not fit the model.
        """
        training = contents.training
        check_same_run(self.saved_config, self.data.fingerprint, contents.config, training["data"])
        self.load_model(contents, at(self.save_dir))
        load_state(self.balancer, training.get("balancing", {}), at(self.save_dir))
        self.optimizer.load_state_dict(training["optimizer"])
        self.state = TrainingState.from_dict(training["state"])
        # The depth of the last step: an evaluation may come before the next one.
        self.go_to(max(0, self.state.step - 1))
        self.reference = read_reference(training.get(REFERENCE))

    def load_model(self, contents: CheckpointContents, where: str) -> None:
        """Load a checkpoint's parameters.

        Raises:
            ModelError: they do not fit the model.
        """
        adapters = contents.training.get(ADAPTERS, {})
        carried = self.warm_start.carried.parameters()
        own = {name: tensor for name, tensor in contents.model.items() if name not in carried}
        load_state(self.model, with_adapters(own, adapters), where)

    def metrics_of(self, epoch: int) -> Mapping[str, Any]:
        """Return the metrics that the model of an epoch is saved with."""
        metrics: Evaluation = self.state.history[epoch - 1]["metrics"]
        if self.earlier is None:
            return metrics
        return {**metrics, "before_refit": self.earlier.metrics}

    def save_best(self, epoch: int, folder: str = BEST) -> None:
        """Write the model of an epoch, the current one, as the best, or as the best for a task."""
        if self.processes.is_first:
            contents = model_contents(
                self.model, self.saved_config, self.max_length, self.metrics_of(epoch)
            )
            contents = replace(contents, epoch=epoch)
            save_model_folder(self.save_dir / folder, self.warm_start.carried.added_to(contents))
            # Adapters are merged in the folder, which a resumed run would read: not bit for bit.
            if folder == BEST and self.config.lora is None:
                self.best_evidence = self.outcomes and self.outcomes.evidence_alone()


def reference_values(reference: Reference) -> dict[str, Any]:
    """Return the reference embeddings as plain values and a tensor for a checkpoint."""
    return {"texts": list(reference.texts), "vectors": torch.from_numpy(reference.vectors)}


def read_reference(values: Mapping[str, Any] | None) -> Reference | None:
    """Restore what `reference_values` returned; None if the run has no reference."""
    return None if values is None else Reference(tuple(values["texts"]), values["vectors"].numpy())
