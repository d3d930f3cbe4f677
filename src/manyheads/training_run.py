"""A training run put together from its configuration, and how it is saved."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from manyheads.allocator import keep_freed_memory
from manyheads.assembly import (
    backbone_state,
    build_encoder,
    encoder_files,
    make_head_layers,
    model_contents,
    task_specs,
)
from manyheads.backends.pytorch import make_predictor
from manyheads.balancing import Balancer, Compared, learned_group, make_balancer
from manyheads.checkpoint import (
    CheckpointContents,
    epoch_path,
    list_checkpoints,
    load_checkpoint,
    newest_intact,
    prune,
    remove_checkpoints,
    save_checkpoint,
    step_path,
)
from manyheads.config import Config
from manyheads.devices import Compute, choose_compute
from manyheads.drift import REFERENCE, Reference
from manyheads.encoder import Encoder
from manyheads.encoder_source import find_encoder
from manyheads.errors import ConfigError, ManyheadsError, ModelError, RequestError, at, listing
from manyheads.freezing import Freezing
from manyheads.heads import make_head
from manyheads.inheritance import INHERITED, Inherited, inherit, refuse_carried
from manyheads.kept_activations import KeptActivations, KeptBackend
from manyheads.kept_embeddings import ORIGINAL, KeptEmbeddings
from manyheads.lora import (
    ADAPTERS,
    adapter_state,
    add_adapters,
    check_adapters,
    plain_state,
    with_adapters,
)
from manyheads.metrics import DriftMetrics, Evaluation
from manyheads.metrics_log import METRICS_FILE, MetricsLog
from manyheads.model import MultiTaskModel
from manyheads.model_files import BEST, best_of, is_model_folder, read_manifest
from manyheads.model_folder import save_model_folder
from manyheads.optimization import AdamW, parameter_groups
from manyheads.pending_steps import PendingStep
from manyheads.predict import Backend, Predictor
from manyheads.process_checks import check_alike, check_possible, tell_processes
from manyheads.processes import ALONE, Processes
from manyheads.schedules import Schedule, passes, steps_per_epoch
from manyheads.scoring import score
from manyheads.state_dicts import fingerprint, load_state
from manyheads.storage import explained
from manyheads.tensorboard_log import TENSORBOARD_FOLDER
from manyheads.tokenization import TextTokenizer
from manyheads.training_data import TrainingData, load_training_data
from manyheads.training_state import TrainingState, check_same_run, differing_keys
from manyheads.windows import Batch, Floats

_LOGS = (METRICS_FILE, TENSORBOARD_FOLDER)
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
                **({} if self.reference is None else {REFERENCE: self.reference.to_dict()}),
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
        self.reference = Reference.from_dict(training.get(REFERENCE))

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


def prepare_run(
    config: Config,
    *,
    resume: bool,
    overwrite: bool,
    say: Callable[[str], None],
    processes: Processes = ALONE,
) -> Run:
    """Read data and encoder, make the model, and go to where the run left off.

    Args:
        config: the whole run.
        resume: go on from the newest intact checkpoint.
        overwrite: remove another run's files from `save_dir`, once all else is in order.
        say: takes what the user should know.
        processes: those that train the model together.

    Raises:
        ManyheadsError: the configuration, data, encoder or folder is at fault.
    """
    refuse_carried(config)
    check_possible(config, processes)
    save_dir = Path(config.save_dir)
    found = find_checkpoint(save_dir, say) if resume else None
    if not found and not overwrite and processes.is_first:
        refuse_other_run(save_dir, resume)
    # For parameters that the encoder's file lacks and nobody reads, such as BERT's pooler.
    torch.manual_seed(config.seed)
    encoder, inherited = _beginning(config, found, say)
    config = inherited.settle(config)
    check_adapters(encoder, config)
    # A resumed run keeps the arithmetic it began with, whatever would be measured today.
    precision = found.training["precision"] if found else config.precision
    hidden = encoder.shape.hidden_size
    threads = processes.threads(config.threads)
    compute = choose_compute(processes.device(config.device), precision, threads, hidden)
    compute = replace(compute, precision=processes.exchange(compute.precision)[0])
    say(
        f"Training on {compute.device} with {compute.threads} threads in {compute.precision} "
        f"({compute.reason})."
    )
    max_length = usable_length(config, encoder)
    tokenizer = TextTokenizer.from_json(encoder.tokenizer_json)
    data = load_training_data(
        config, tokenizer, max_length, lambda text: say(f"warning: {text}"), inherited.labels
    )
    if found and ORIGINAL in found.training:
        load_state(encoder.backbone, found.training[ORIGINAL], at(save_dir))
    encoder.to(compute.device)
    if config.keep_embeddings is not None:
        say("Embedding all sentences with the original encoder, to hold the embedding there.")
    kept = KeptEmbeddings.of_run(config, data, encoder)
    reference = None
    if not found and processes.is_first:
        exact = replace(compute, precision="float32")
        original = make_predictor(MultiTaskModel(encoder, {}), exact, tokenizer, max_length)
        reference = Reference.of(original, [r for part in data.validation for r in part.records])
    torch.manual_seed(config.seed)
    heads = {
        name: make_head(task, data.label_sets[name], encoder.shape)
        for name, task in config.tasks.items()
    }
    head_layers = make_head_layers(config, encoder)
    inherited.fill(heads, head_layers)
    if head_layers is not None and inherited.holds_layers(config):
        head_layers.requires_grad_(False)
    add_adapters(encoder, config)
    model = MultiTaskModel(encoder, heads, head_layers).to(compute.device)
    if compute.device.type == "cpu":
        keep_freed_memory()
        encoder.use_sparse_gradients()
    freezing = Freezing(model, config, steps_per_epoch(data.sources, Schedule.of(config)))
    say(freezing.describe())
    balancer = make_balancer(config).to(compute.device)
    optimizer = AdamW(parameter_groups(model, config) + learned_group(balancer, config))
    activations = KeptActivations.of_run(config, data, model, freezing.depth_at(0), compute)
    run = Run(config, save_dir, data, model, tokenizer, max_length, compute, optimizer, freezing,
              balancer, inherited, activations, kept, reference, processes=processes)  # fmt: skip
    tell_processes(config, processes, say)
    tell_passes(run, say)
    if found:
        run.restore(found)
        say(f"Resumed after step {run.state.step} of {run.total_steps}.")
    if processes.count > 1:
        facts = {"data": data.fingerprint, "step": run.state.step}
        check_alike(processes, config, {**facts, "weights": fingerprint(model.state_dict())})
    if not processes.is_first:
        return run
    if found:
        restore_best(run, say)
        # A run that was killed between a save and this left a checkpoint too many.
        prune(save_dir, config.keep_checkpoints)
    else:
        # Not before everything else is known to be in order.
        remove_run(save_dir)
    return run


def _beginning(
    config: Config, found: CheckpointContents | None, say: Callable[[str], None]
) -> tuple[Encoder, Inherited]:
    """Get the encoder, and what else is taken over from a trained model."""
    if found:
        encoder = build_encoder(found.encoder, backbone_state(found.model), at(config.save_dir))
        taken = Inherited() if config.init_from is None else Inherited.of_checkpoint(found)
        return encoder, taken
    if config.init_from is None:
        return Encoder.from_source(find_encoder(config.model_name, config.pooling)), Inherited()
    return inherit(config, say)


def find_checkpoint(save_dir: Path, say: Callable[[str], None]) -> CheckpointContents | None:
    """Return the newest intact checkpoint, and tell which damaged ones were passed over."""
    intact, refused = newest_intact(save_dir)
    for one in refused:
        say(f"warning: passed over a checkpoint. {one.error}")
    if intact is None:
        if refused:
            raise RequestError(
                "no checkpoint is intact", where=at(save_dir),
                fix="Start anew with --overwrite, or put an intact checkpoint back.",
            )  # fmt: skip
        say(f"There is no checkpoint in {save_dir} yet; training starts from the beginning.")
        return None
    say(f"Continuing from {intact.path}.")
    return intact.contents


def restore_best(run: Run, say: Callable[[str], None]) -> None:
    """Write the best models' folders again unless they are whole and the ones that were chosen.

    Raises:
        ModelError: the checkpoint of one's epoch is gone or damaged.
    """
    if run.state.best.epoch:
        _restore_one(run, BEST, run.state.best.epoch, say)
    for task, best in run.state.best_of.items():
        _restore_one(run, best_of(task), best.epoch, say)


def _restore_one(run: Run, name: str, best: int, say: Callable[[str], None]) -> None:
    folder, metrics = run.save_dir / name, run.state.history[best - 1]["metrics"]
    try:
        manifest = read_manifest(folder)
        manifest.verify()
        # What an epoch is told by: its metrics, since only a better one takes its place.
        same_metrics = manifest.metrics == json.loads(json.dumps(metrics))
        if same_metrics and not differing_keys(run.saved_config, manifest.config):
            return
        say(f"warning: {folder} is not the model of epoch {best}.")
    except ManyheadsError as error:
        say(f"warning: {error}")
    path = epoch_path(run.save_dir, best)
    if not path.exists():
        raise ModelError(
            f"the best model, which is that of epoch {best}, is gone or damaged",
            where=at(folder), expected=f"its folder, or {path.name} to write it from",
            fix="Put one of them back, or start anew with --overwrite.",
        )  # fmt: skip
    contents = load_checkpoint(path)
    present = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.load_model(contents, at(path))
    run.save_best(metrics, name)
    load_state(run.model, present, at(path))
    say(f"Wrote {folder} again from the checkpoint of epoch {best}.")


def tell_passes(run: Run, say: Callable[[str], None]) -> None:
    """Tell how often each task's records are seen, unless that is once an epoch, as ever."""
    config, sources = run.config, run.data.sources
    counts = passes(sources, Schedule.of(config))
    if all(count == config.num_epochs for count in counts):
        return
    told = ", ".join(
        f"{source.name} {count:.2f} times" for source, count in zip(sources, counts, strict=True)
    )
    say(f"In {config.num_epochs} epochs the records of each task are seen: {told}.")
    for source, count in zip(sources, counts, strict=True):
        if count < 1:
            say(
                f"warning: {1 - count:.0%} of the records of {source.name} are never seen in "
                f"{config.num_epochs} epochs; raise `num_epochs`, the task's share of the steps "
                "or its `max_records` to see them all."
            )


def usable_length(config: Config, encoder: Encoder) -> int:
    """Return the configured length of inputs.

    Raises:
        ConfigError: the encoder cannot read that many sub-tokens.
    """
    if config.max_length > encoder.max_positions:
        raise ConfigError(
            f"`max_length` is {config.max_length}",
            expected=f"at most {encoder.max_positions}, which is what the encoder reads",
        )
    return config.max_length


def refuse_other_run(save_dir: Path, resume: bool) -> None:
    """See to it that a new run finds no other run's files in its folder.

    Args:
        save_dir: the folder.
        resume: whether logs may be there: they are all that a run leaves which ended before its
            first checkpoint.

    Raises:
        RequestError: it does.
    """
    others = [path for path in _beside_checkpoints(save_dir) if path.exists()]
    if resume:
        others = [path for path in others if path.name not in _LOGS]
    remains = [*(file.path for file in list_checkpoints(save_dir)), *others]
    if remains:
        go_on = "R" if resume else "Continue that run with --resume, r"
        raise RequestError(
            f"the folder holds another run ({listing(path.name for path in remains)})",
            where=at(save_dir), expected="a new or empty `save_dir`",
            fix=f"{go_on}eplace it with --overwrite, or choose another `save_dir`.",
        )  # fmt: skip


def remove_run(save_dir: Path) -> None:
    """Remove a run's checkpoints, log and best models.

    Raises:
        StorageError: one could not be removed.
    """
    remove_checkpoints(save_dir)
    for path in _beside_checkpoints(save_dir):
        with explained(path, "removed"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def _beside_checkpoints(save_dir: Path) -> list[Path]:
    for_tasks = sorted(path for path in save_dir.glob(best_of("*")) if is_model_folder(path))
    return [save_dir / BEST, *for_tasks, *(save_dir / name for name in _LOGS)]
