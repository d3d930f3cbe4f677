"""A run put together from its configuration: encoder, data, model, optimiser, resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from manyheads.config import Config
from manyheads.errors import ConfigError, at
from manyheads.evaluation import Reference
from manyheads.inference.backends.pytorch import make_predictor
from manyheads.modeling import (
    CheckpointContents,
    Encoder,
    Freezing,
    MultiTaskModel,
    add_adapters,
    backbone_state,
    build_encoder,
    check_adapters,
    choose_compute,
    find_encoder,
    fingerprint,
    load_state,
    make_head_layers,
    prune,
)
from manyheads.modeling.heads import make_head
from manyheads.text import TextTokenizer
from manyheads.training.activation_cache import KeptActivations
from manyheads.training.balancing import learned_group, make_balancer
from manyheads.training.data.schedules import Schedule, passes, steps_per_epoch
from manyheads.training.data.training_data import load_training_data
from manyheads.training.distillation import ORIGINAL, KeptEmbeddings
from manyheads.training.distributed import ALONE, Processes
from manyheads.training.distributed_checks import check_alike, check_possible, tell_processes
from manyheads.training.optimizer import AdamW, parameter_groups
from manyheads.training.run import Run
from manyheads.training.run_folder import (
    find_checkpoint,
    refuse_other_run,
    remove_run,
    restore_best,
)
from manyheads.training.warm_start import Inherited, inherit, refuse_carried


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
