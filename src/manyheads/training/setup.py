"""A run's parts made from its configuration, in stages: encoder, data, model, optimiser, resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from manyheads.config import Config, available_cores
from manyheads.errors import ConfigError, at, counted
from manyheads.evaluation import Reference
from manyheads.inference.backends.pytorch import source_embedder
from manyheads.modeling import (
    CheckpointContents,
    Compute,
    Encoder,
    Freezing,
    MultiTaskModel,
    add_adapters,
    backbone_state,
    build_encoder,
    check_adapters,
    choose_compute,
    choose_device,
    find_encoder,
    fingerprint,
    load_state,
    make_head_layers,
    prune,
    student_of,
)
from manyheads.modeling.heads import make_head
from manyheads.text import TextTokenizer
from manyheads.training.activation_cache import ActivationCache
from manyheads.training.balancing import Balancer, learned_group, make_balancer
from manyheads.training.batch_reader import BatchReader, FullReader
from manyheads.training.data.schedules import Schedule, passes, steps_per_epoch, turns_ahead
from manyheads.training.data.training_data import TrainingData, load_training_data
from manyheads.training.distillation import ORIGINAL, ORIGINAL_CONFIG, Distillation
from manyheads.training.distributed import ALONE, Processes
from manyheads.training.distributed_checks import check_alike, check_possible, report_processes
from manyheads.training.epochs import check_resumed, decide_epochs, is_complete
from manyheads.training.head_start import fit_heads
from manyheads.training.optimizer import AdamW, parameter_groups
from manyheads.training.refit import STATE, Earlier
from manyheads.training.run import Run
from manyheads.training.run_folder import (
    find_checkpoint,
    refuse_other_run,
    remove_run,
    require_room,
    restore_best,
)
from manyheads.training.teaching import TEACHERS, Teaching
from manyheads.training.terms import LossTerm
from manyheads.training.threads import choose_threads
from manyheads.training.token_dropout import TokenDropout
from manyheads.training.warm_start import WarmStart, load_warm_start, refuse_carried
from manyheads.training.word_features import decide_word_features

Report = Callable[[str], None]
"""Receives messages for the user."""


@dataclass(frozen=True)
class EncoderStage:
    """The encoder that training starts from, and how it computes."""

    config: Config
    """With the settings that a trained model determines filled in."""
    encoder: Encoder
    original: Encoder
    """The encoder whose embeddings are kept: the same one, or the one that a student is made
    from."""
    warm_start: WarmStart
    tokenizer: TextTokenizer
    max_length: int
    compute: Compute


@dataclass(frozen=True)
class DataStage:
    """The training data, and the embeddings that the run keeps of the original encoder."""

    data: TrainingData
    terms: tuple[LossTerm, ...]
    reference: Reference | None
    """None in a resumed run, whose checkpoint has it, in all processes but the first, and where
    nothing is validated."""


@dataclass(frozen=True)
class ModelStage:
    """The model to train, and how batches are run through it."""

    model: MultiTaskModel
    freezing: Freezing
    reader: BatchReader


@dataclass(frozen=True)
class OptimizerStage:
    """How the model's losses change its weights."""

    balancer: Balancer
    optimizer: AdamW


def prepare_run(
    config: Config,
    *,
    resume: bool,
    overwrite: bool,
    report: Report,
    processes: Processes = ALONE,
) -> Run:
    """Read encoder and data, make the model, and restore the state of a resumed run.

    Args:
        config: the run.
        resume: continue from the newest intact checkpoint.
        overwrite: remove another run's files from `save_dir`, once everything else is in order.
        report: receives messages for the user.
        processes: the processes that train the model together.

    Raises:
        ManyheadsError: the configuration, data, encoder or folder is at fault.
    """
    refuse_carried(config)
    check_possible(config, processes)
    save_dir = Path(config.save_dir)
    found = find_checkpoint(save_dir, report) if resume else None
    if not found and not overwrite and processes.is_first:
        refuse_other_run(save_dir, resume)
    start = prepare_encoder(config, found, processes, report)
    inputs = prepare_data(start, found, processes, report)
    stored = None if found is None else stored_epochs(found)
    config = decide_epochs(start.config, inputs.data.sources, stored, report)
    start = replace(start, config=config)
    parts = prepare_model(start, inputs.data, report)
    if found is None:
        start_heads(start, inputs.data, parts.model, processes)
    learning = prepare_optimizer(start, parts.model)
    run = Run(
        config=start.config, save_dir=save_dir, data=inputs.data, model=parts.model,
        tokenizer=start.tokenizer, max_length=start.max_length, compute=start.compute,
        optimizer=learning.optimizer, freezing=parts.freezing, balancer=learning.balancer,
        warm_start=start.warm_start, reader=parts.reader, terms=inputs.terms,
        reference=inputs.reference, processes=processes, earlier=_earlier(config, found),
    )  # fmt: skip
    report_processes(start.config, processes, report)
    report_passes(run, report)
    restore(run, found, report)
    return run


def _earlier(config: Config, found: CheckpointContents | None) -> Earlier | None:
    """Return what is known of the model before, if the run refits one."""
    if config.refit is None:
        return None
    return Earlier.of_config(config) if found is None else Earlier.of_state(found.training[STATE])


def prepare_encoder(
    config: Config, found: CheckpointContents | None, processes: Processes, report: Report
) -> EncoderStage:
    """Load the encoder, and choose device, threads and precision.

    Args:
        config: the run.
        found: the checkpoint that the run continues from.
        processes: the processes that train the model together.
        report: receives messages for the user.
    """
    # Seeds parameters that the encoder's file lacks and nothing reads, such as BERT's pooler.
    torch.manual_seed(config.seed)
    encoder, warm_start = _load_encoder(config, found, report)
    original = _original(encoder, found)
    if config.student_layers is not None and not found:
        encoder = student_of(encoder, config.student_layers)
    tokenizer = TextTokenizer.from_json(encoder.tokenizer_json)
    config = warm_start.complete(config)
    config = decide_word_features(config, tokenizer, found, warm_start.tasks)
    check_adapters(encoder, config)
    # A resumed run keeps its precision, whatever a measurement would choose today.
    precision = found.training["precision"] if found else config.precision
    device, hidden = processes.device(config.device), encoder.shape.hidden_size
    threads = processes.threads(config.threads)
    reasons: tuple[str, ...] = ()
    if threads is None and choose_device(device).type == "cpu":
        # Runs of earlier versions, which did not record it, had all cores.
        recorded = found.training.get("threads", available_cores()) if found else None
        choice = choose_threads(hidden, recorded)
        threads, reasons = choice.count, choice.reasons
    compute = choose_compute(device, precision, threads, hidden)
    compute = replace(compute, precision=processes.exchange(compute.precision)[0])
    if found and config.precision == "auto":
        compute = replace(compute, reason="precision as before")
    report(
        f"Training on {compute.device} with {counted(compute.threads, 'thread')} in "
        f"{compute.precision} ({'; '.join([*reasons, compute.reason])})."
    )
    max_length = usable_length(config, encoder)
    return EncoderStage(config, encoder, original, warm_start, tokenizer, max_length, compute)


def _load_encoder(
    config: Config, found: CheckpointContents | None, report: Report
) -> tuple[Encoder, WarmStart]:
    """Load the encoder from the checkpoint, the trained model or the pretrained one."""
    if found:
        encoder = build_encoder(found.encoder, backbone_state(found.model), at(config.save_dir))
        inherits = config.init_from is not None
        return encoder, WarmStart.of_checkpoint(found) if inherits else WarmStart()
    if config.init_from is None:
        return Encoder.from_source(find_encoder(config.model_name, config.pooling)), WarmStart()
    return load_warm_start(config, report)


def _original(encoder: Encoder, found: CheckpointContents | None) -> Encoder:
    """Return the encoder before training; a resumed run has it in its checkpoint."""
    if found is None or ORIGINAL not in found.training:
        return encoder
    state = found.training[ORIGINAL]
    files = replace(found.encoder, config=found.training.get(ORIGINAL_CONFIG, encoder.config))
    original = build_encoder(files, state, ORIGINAL)
    load_state(original.backbone, state, ORIGINAL)
    return original


def prepare_data(
    start: EncoderStage, found: CheckpointContents | None, processes: Processes, report: Report
) -> DataStage:
    """Read the data, and compute the original encoder's embeddings that the run needs."""
    config, encoder = start.config, start.encoder
    data = load_training_data(
        config, start.tokenizer, start.max_length, lambda text: report(f"warning: {text}"),
        start.warm_start.labels, start.warm_start.units, encoder.reading.prompt,
    )  # fmt: skip
    encoder.to(start.compute.device)
    if config.keep_embeddings is not None:
        report("Embedding all sentences with the original encoder (`keep_embeddings`).")
    distillation = Distillation.of_run(config, data, start.original.to(start.compute.device))
    teaching = _teaching(start, data, found, processes, report)
    reference = None
    if not found and processes.is_first and config.refit is None:
        reference = _reference(start, data)
    terms = tuple(term for term in (distillation, teaching) if term is not None)
    return DataStage(data, terms, reference)


def _teaching(
    start: EncoderStage,
    data: TrainingData,
    found: CheckpointContents | None,
    processes: Processes,
    report: Report,
) -> Teaching | None:
    """Query the teachers in the first process; the others then read the outputs that it cached."""
    if start.config.teacher is None:
        return None
    if not processes.is_first:
        processes.exchange(None)
    stored = None if found is None else found.training.get(TEACHERS)
    teaching = Teaching.of_run(
        start.config, data, start.tokenizer, start.max_length, stored, start.compute, report
    )
    if processes.is_first:
        processes.exchange(None)
    return teaching


def _reference(start: EncoderStage, data: TrainingData) -> Reference:
    """Embed validation sentences with the original encoder, in float32."""
    original = source_embedder(start.config, start.compute.threads)
    return Reference.of(original, [r for part in data.validation for r in part.records])


def prepare_model(start: EncoderStage, data: TrainingData, report: Report) -> ModelStage:
    """Add heads to the encoder, and freeze what is not trained from the start."""
    config, encoder = start.config, start.encoder
    torch.manual_seed(config.seed)
    heads = {
        name: make_head(task, data.label_sets[name], encoder.shape)
        for name, task in config.tasks.items()
    }
    head_layers = make_head_layers(config, encoder)
    start.warm_start.load_into(heads, head_layers)
    if head_layers is not None and start.warm_start.freezes_layers(config):
        head_layers.requires_grad_(False)
    add_adapters(encoder, config)
    model = MultiTaskModel(encoder, heads, head_layers).to(start.compute.device)
    if start.compute.device.type == "cpu":
        encoder.use_sparse_gradients()
    freezing = Freezing(model, config, steps_per_epoch(data.sources, Schedule.of(config)))
    report(freezing.describe())
    dropout = TokenDropout.of_run(config, start.tokenizer, encoder.pad_id)
    cache = ActivationCache.of_run(config, data, model, freezing.depth_at(0), start.compute)
    reader = cache or FullReader(model, data.datasets, start.compute, dropout)
    return ModelStage(model, freezing, reader)


def start_heads(
    start: EncoderStage, data: TrainingData, model: MultiTaskModel, processes: Processes
) -> None:
    """Fit the new heads with `start: fitted`; all processes take the first one's result."""
    fresh = [name for name in start.config.tasks if name not in start.warm_start.heads]
    for head in fit_heads(
        model, start.config, data, start.tokenizer, start.max_length, start.compute, fresh
    ):
        if processes.count > 1:
            state = {name: tensor.tolist() for name, tensor in head.state_dict().items()}
            state = processes.exchange(state)[0]
            head.load_state_dict({name: torch.tensor(values) for name, values in state.items()})


def prepare_optimizer(start: EncoderStage, model: MultiTaskModel) -> OptimizerStage:
    """Make the balancer, and the optimiser of its parameters and the model's."""
    balancer = make_balancer(start.config).to(start.compute.device)
    groups = parameter_groups(model, start.config) + learned_group(balancer, start.config)
    return OptimizerStage(balancer, AdamW(groups))


def restore(run: Run, found: CheckpointContents | None, report: Report) -> None:
    """Restore a checkpoint's state; without one, clear the folder.

    Raises:
        RequestError: the checkpoint has another configuration or other data, or the processes
            do not train the same model.
    """
    config, processes = run.config, run.processes
    if found:
        run.restore(found)
        state, epochs = run.state, stored_epochs(found)
        check_resumed(config, epochs, state, report)
        if config.epochs != epochs:
            new = Schedule.of(config)
            old = replace(new, epochs=epochs)
            state.ahead = turns_ahead(run.data.sources, old, new, state.step, state.ahead)
        # The number of epochs and `early_stopping` may be others now.
        state.finished = is_complete(config, state.epoch, state.history)
        report(f"Resumed after step {run.state.step} of {run.total_steps}.")
    if processes.count > 1:
        facts = {"data": run.data.fingerprint, "step": run.state.step}
        weights = fingerprint(run.model.state_dict())
        check_alike(processes, config, {**facts, "weights": weights})
    if not processes.is_first:
        return
    if found:
        restore_best(run, report)
        # A run that was killed between a save and this left one checkpoint too many.
        prune(run.save_dir, config.keep_checkpoints)
        if not run.state.finished:
            require_room(run)
    else:
        require_room(run)
        # Only once everything else is known to be in order.
        remove_run(run.save_dir)


def stored_epochs(found: CheckpointContents) -> int:
    """Return the number of epochs of the run that wrote a checkpoint."""
    return int(found.config["num_epochs"])


def report_passes(run: Run, report: Report) -> None:
    """Report how often each task's records are seen, unless that is once an epoch."""
    config, sources = run.config, run.data.sources
    counts = passes(sources, Schedule.of(config))
    if all(count == config.epochs for count in counts):
        return
    shown = ", ".join(
        f"{source.name} {count:.2f} times" for source, count in zip(sources, counts, strict=True)
    )
    report(f"In {counted(config.epochs, 'epoch')} the records of each task are seen: {shown}.")
    for source, count in zip(sources, counts, strict=True):
        if count < 1:
            report(
                f"warning: {1 - count:.0%} of the records of {source.name} are never seen in "
                f"{counted(config.epochs, 'epoch')}; raise `num_epochs`, the task's share of "
                "the steps or its `max_records` to see them all."
            )


def usable_length(config: Config, encoder: Encoder) -> int:
    """Return the configured length of inputs.

    Raises:
        ConfigError: the encoder cannot read that many sub-tokens.
    """
    if config.max_length > encoder.max_positions:
        raise ConfigError(
            f"`max_length` is {config.max_length}",
            expected=f"at most {encoder.max_positions}, the length that the encoder can read",
        )
    return config.max_length
