"""A training run put together from its configuration, and how it is saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from manyheads.config import Config
from manyheads.errors import at
from manyheads.evaluation import REFERENCE, Reference, score
from manyheads.inference import Predictor
from manyheads.inference.backends.base import Backend
from manyheads.inference.backends.pytorch import make_predictor
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
from manyheads.training.activation_cache import KeptActivations, KeptBackend
from manyheads.training.balancing import Balancer, Compared
from manyheads.training.data.schedules import Schedule, steps_per_epoch
from manyheads.training.data.training_data import TrainingData
from manyheads.training.distillation import ORIGINAL, KeptEmbeddings
from manyheads.training.distributed import ALONE, Processes
from manyheads.training.metrics_log import MetricsLog
from manyheads.training.optimizer import AdamW
from manyheads.training.pending import PendingStep
from manyheads.training.state import TrainingState, check_same_run
from manyheads.training.warm_start import INHERITED, Inherited

_SECONDS = {"s": 1, "m": 60, "h": 3600}


class Clock:
    """Measures the time between lines of the log and between saves."""

    def __init__(self) -> None:
        self._lap = self._save = time.monotonic()

    def lap(self) -> float:
        """Return the seconds since the last call."""
        now = time.monotonic()
        elapsed, self._lap = now - self._lap, now
        return elapsed

    def saved(self) -> None:
        """Note that the state has just been saved."""
        self._save = time.monotonic()

    def since_save(self) -> float:
        """Return the seconds since the state was last saved."""
        return time.monotonic() - self._save


class _Watched:
    """A backend that lets somebody speak up before each batch."""

    def __init__(self, backend: Backend, before_batch: Callable[[], None]) -> None:
        self._backend = backend
        self._before_batch = before_batch

    @property
    def name(self) -> str:
        """What the backend is called in messages."""
        return self._backend.name

    def run(self, batch: Batch) -> Mapping[str, Floats]:
        """Compute every head's logits and the embedding, unless somebody speaks up."""
        self._before_batch()
        return self._backend.run(batch)


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
    """Holds what of the model is not trained."""
    balancer: Balancer
    """Decides what the tasks' losses and gradients count."""
    inherited: Inherited
    """What is taken over from the trained model that the run starts from, if it starts from one."""
    activations: KeptActivations | None = None
    """What the frozen part of the encoder gave, where enough is frozen for that to be kept."""
    kept: KeptEmbeddings | None = None
    """Holds the sentence embedding near the original's, where that is asked for."""
    reference: Reference | None = None
    """The original's embeddings of some validation sentences, to measure how far it goes."""
    drift_of_frozen: DriftMetrics | None = None
    """How far it is where the whole encoder is frozen, once that is known."""
    compared: Compared | None = None
    """The tasks' gradients of the encoder in the last step, if they were compared in it."""
    pending: list[PendingStep] = field(default_factory=list)
    """The last steps, as long as nobody has looked at what they gave."""
    processes: Processes = ALONE
    """Those that train the model together."""
    state: TrainingState = field(default_factory=TrainingState)
    clock: Clock = field(default_factory=Clock)

    @property
    def saved_config(self) -> Config:
        """The configuration with the tasks that are carried along."""
        return self.inherited.carried.joined_to(self.config)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return steps_per_epoch(self.data.sources, Schedule.of(self.config))

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.config.num_epochs * self.steps_per_epoch

    def trained(self) -> list[torch.nn.Parameter]:
        """Return all parameters that the optimiser knows."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def go_to(self, step: int) -> None:
        """Free what is trained after so many optimiser steps; what is kept of it is let go."""
        self.freezing.go_to(step)
        if self.freezing.depth < self.freezing.depth_at(0):
            self.activations = None

    def evaluate(self, before_batch: Callable[[], None] = lambda: None) -> Evaluation:
        """Score the model as it is on the validation data, in float32.

        Args:
            before_batch: called before each batch; what it raises ends the evaluation.
        """
        exact = replace(self.compute, precision="float32")
        predictor = make_predictor(self.model, exact, self.tokenizer, self.max_length)
        backend = predictor.backend
        if self.activations is not None:
            backend = KeptBackend(self.activations)
        predictor.backend = _Watched(backend, before_batch)
        sets = [(part.records, part.tasks) for part in self.data.validation]
        evaluation = score(predictor, sets).evaluation()
        if self.reference is not None:
            evaluation["drift"] = self._drift(predictor, self.reference)
        return evaluation

    def _drift(self, predictor: Predictor, reference: Reference) -> DriftMetrics:
        """Measure how far the embedding has gone: once where the whole encoder is frozen."""
        if self.activations is None or not self.freezing.is_whole:
            return reference.drift(predictor)
        if self.drift_of_frozen is None:
            self.drift_of_frozen = reference.drift(predictor)
        return self.drift_of_frozen

    def save_is_due(self) -> bool:
        """Tell whether a checkpoint inside the epoch is due at this step."""
        every = self.config.checkpoint_every
        if every is None:
            return False
        if isinstance(every, int):
            return self.state.step % every == 0
        return self.clock.since_save() >= int(every[:-1]) * _SECONDS[every[-1]]

    def save_step(self, log: MetricsLog) -> Path:
        """Save the state inside an epoch, in place of any earlier such save."""
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

    def contents(self) -> CheckpointContents:
        """Return all that a checkpoint holds of the run as it is."""
        return CheckpointContents(
            config=self.saved_config.model_dump(mode="json"),
            tasks=[*self.inherited.carried.specs, *task_specs(self.model)],
            encoder=encoder_files(self.model.encoder, self.max_length),
            model={**plain_state(self.model), **self.inherited.carried.parameters()},
            training={
                "state": self.state.to_dict(),
                "optimizer": self.optimizer.state_dict(),
                "balancing": dict(self.balancer.state_dict()),
                "data": self.data.fingerprint,
                "precision": self.compute.precision,
                "torch_rng": torch.get_rng_state(),
                **(
                    {} if self.config.init_from is None else {INHERITED: list(self.inherited.tasks)}
                ),
                **({} if self.config.lora is None else {ADAPTERS: adapter_state(self.model)}),
                **({} if self.kept is None else {ORIGINAL: self.kept.original}),
                **({} if self.reference is None else {REFERENCE: reference_values(self.reference)}),
            },
            epoch=self.state.epoch,
            step=self.state.step,
        )

    def restore(self, contents: CheckpointContents) -> None:
        """Go to where a checkpoint was saved.

        Raises:
            RequestError: it is of another configuration or other data.
            ModelError: its parameters do not fit the model.
        """
        training = contents.training
        check_same_run(self.saved_config, self.data.fingerprint, contents.config, training["data"])
        self.load_model(contents, at(self.save_dir))
        load_state(self.balancer, training.get("balancing", {}), at(self.save_dir))
        self.optimizer.load_state_dict(training["optimizer"])
        torch.set_rng_state(training["torch_rng"])
        self.state = TrainingState.from_dict(training["state"])
        # Where the last step was made: an evaluation may come before the next one.
        self.go_to(max(0, self.state.step - 1))
        self.reference = read_reference(training.get(REFERENCE))

    def load_model(self, contents: CheckpointContents, where: str) -> None:
        """Take on a checkpoint's parameters.

        Raises:
            ModelError: they do not fit the model.
        """
        adapters = contents.training.get(ADAPTERS, {})
        carried = self.inherited.carried.parameters()
        own = {name: tensor for name, tensor in contents.model.items() if name not in carried}
        load_state(self.model, with_adapters(own, adapters), where)

    def save_best(self, evaluation: Mapping[str, Any], folder: str = BEST) -> None:
        """Write the model as it is to the folder of the best one, or of the best for a task."""
        if self.processes.is_first:
            contents = model_contents(self.model, self.saved_config, self.max_length, evaluation)
            save_model_folder(self.save_dir / folder, self.inherited.carried.added_to(contents))


def reference_values(reference: Reference) -> dict[str, Any]:
    """Return the reference embeddings as plain values and a tensor, for a checkpoint."""
    return {"texts": list(reference.texts), "vectors": torch.from_numpy(reference.vectors)}


def read_reference(values: Mapping[str, Any] | None) -> Reference | None:
    """Restore what `reference_values` returned; None for a run that kept no reference."""
    return None if values is None else Reference(tuple(values["texts"]), values["vectors"].numpy())
