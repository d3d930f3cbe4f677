"""One optimiser step: the batches' losses and gradients, and the change of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manyheads.modeling import EMBEDDING, ModelInputs, moved
from manyheads.tasks import SIMILARITY
from manyheads.training.activation_cache import KeptBatch
from manyheads.training.balancing import Compared, TaskGradients
from manyheads.training.data.batching import Rows, Step, step_seed
from manyheads.training.data.dataset import UNLABELLED, Dataset
from manyheads.training.distillation import HELD
from manyheads.training.optimizer import clip, rate_factor, set_rates
from manyheads.training.run import Run


@dataclass(frozen=True)
class LabelledBatch:
    """One batch of a step, and what its tasks should make of it."""

    inputs: ModelInputs | KeptBatch
    """The sentences, or what is kept of them where the lower part of the encoder is frozen."""
    targets: Mapping[str, Tensor]
    """By task, as `TaskTargets.collate` makes them."""
    dataset: int
    """Which data set the sentences are of."""
    rows: NDArray[np.int64]
    """[B] their numbers in it."""
    counts: Mapping[str, int]
    """By task, how much is labelled in this process's part of the batch."""


@dataclass(frozen=True)
class StepBatches:
    """The batches of a step, or this process's part of them."""

    batches: Sequence[LabelledBatch]
    """Without those of which this process has nothing."""
    tasks: Sequence[str]
    """All that the step trains."""
    totals: Mapping[str, int]
    """By task, how much is labelled in all processes' parts of all batches."""
    sentences: int
    """How many there are in them."""

    def share(self, task: str, batch: LabelledBatch) -> float:
        """Return which share of all that is labelled for a task in the step a batch holds."""
        return batch.counts.get(task, 0) / max(1, self.totals[task])


def forward_backward(run: Run, step: Step) -> dict[str, Tensor]:
    """Add up the gradients of a step's batches, in all processes.

    Each task's loss is the mean over all that is labelled in the step, so that a step of several
    batches has the gradient of one large batch. A step of several sources adds up their losses.

    Returns:
        Each task's loss before its weight, a float32 scalar; and that of holding the embedding,
        where it is held.
    """
    model, device = run.model, run.compute.device
    run.go_to(run.state.step)
    gradients = None
    if (run.balancer.compares or _is_measured(run)) and not run.freezing.is_whole:
        gradients = TaskGradients(model.encoder.parameters())
    apart = gradients is not None and run.balancer.compares
    held = _hold_texts(run)
    loaded = load_batches(run, step)
    run.freezing.train_mode()
    _seed(device, step_seed(run.config.seed, run.state.step, run.processes.rank))
    losses = {task: torch.zeros((), device=device) for task in loaded.tasks}
    for batch in loaded.batches:
        with run.compute.autocast():
            outputs = _answers(run, batch)
        terms: dict[str, Tensor] = {}
        for task, target in batch.targets.items():
            loss = model.head(task).loss(outputs[task], moved(target, device))
            share = loaded.share(task, batch)
            losses[task] = losses[task] + share * loss.detach()
            terms[task] = run.balancer.term(task, loss, share)
        if run.kept is not None:
            loss = run.kept.loss(batch.dataset, batch.rows, outputs[EMBEDDING])
            share = len(batch.rows) / loaded.sentences
            held = held + share * loss.detach()
            terms[HELD] = run.kept.weight * share * loss
        if gradients is not None and apart:
            _backward_apart(terms, gradients)
        else:
            _backward(terms, gradients)
    run.compared = None
    if gradients is not None:
        gram = gradients.gram([task for task in loaded.tasks if loaded.totals[task]])
        run.compared = Compared(gram, run.balancer.combine(gram, run.state.step))
        if apart:
            gradients.lay(run.compared.counts)
    if run.kept is not None:
        losses[HELD] = held
    return run.processes.add_up(run.trained(), losses)


def _seed(device: torch.device, seed: int) -> None:
    """Seed what dropout draws from."""
    if device.type == "cpu":
        # Of the other devices' generators each takes note where it was called from: 0.1 ms.
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _answers(run: Run, batch: LabelledBatch) -> dict[str, Tensor]:
    """Run the model, or of it what is above the kept activations."""
    tasks = tuple(batch.targets)
    if isinstance(batch.inputs, ModelInputs):
        outputs: dict[str, Tensor] = run.model(batch.inputs.to(run.compute.device), tasks)
        return outputs
    assert run.activations is not None
    return run.model.answers(run.activations.features(batch.inputs), tasks)


def _is_measured(run: Run) -> bool:
    """Tell whether the tasks' gradients are to be known in this step, though nothing needs them."""
    every = run.config.log_gradients
    return every is not None and (run.state.step + 1) % every == 0


def _backward(terms: Mapping[str, Tensor], measured: TaskGradients | None) -> None:
    """Add up the gradients of a batch's terms, in one pass.

    Args:
        terms: what each task, and holding the embedding, adds to the loss: scalars.
        measured: takes a copy of the tasks' gradients of the encoder.
    """
    if measured is not None:
        for task, term in terms.items():
            if task != HELD:
                measured.measure(task, term)
    device = next(iter(terms.values())).device
    total = sum(terms.values(), torch.zeros((), device=device))
    _add_gradients(total)


def _backward_apart(terms: Mapping[str, Tensor], gradients: TaskGradients) -> None:
    """Add up the gradients of a batch's terms, but those of the encoder each for itself.

    Args:
        terms: as for `_backward`.
        gradients: takes the encoder's gradients, and those that it has before.
    """
    gradients.take_rest()
    for number, (task, term) in enumerate(terms.items(), start=1):
        _add_gradients(term, keep_graph=number < len(terms))
        if task == HELD:
            gradients.take_rest()
        else:
            gradients.take(task)


def _hold_texts(run: Run) -> Tensor:
    """Add the gradient of holding the embedding on unlabelled sentences; returns its loss."""
    held = torch.zeros((), device=run.compute.device)
    if run.kept is None:
        return held
    # Without dropout, which would keep the embedding from ever being the original's.
    run.model.eval()
    with run.compute.autocast():
        loss = run.kept.text_loss(run.model.encoder, run.state.step, run.processes.share)
    if loss is None:
        return held
    _add_gradients(run.kept.weight * loss)
    return loss.detach()


def _add_gradients(loss: Tensor, *, keep_graph: bool = False) -> None:
    """Add a loss's gradients, if it has any: all that it would train may still be frozen."""
    if loss.requires_grad:
        loss.backward(retain_graph=keep_graph)  # type: ignore[no-untyped-call]


def load_batches(run: Run, step: Step) -> StepBatches:
    """Gather and pad this process's part of the batches of a step, source by source."""
    batches: list[LabelledBatch] = []
    totals: dict[str, int] = {}
    sentences = 0
    for part in step.parts:
        source = run.data.sources[part.source]
        dataset = run.data.datasets[source.dataset]
        for number, drawn in enumerate(part.batches):
            mine = _mine(run, source.tasks, drawn, number)
            every, rows = dataset.with_partners(drawn), dataset.with_partners(mine)
            sentences += len(every)
            targets = _targets(dataset, source.tasks, rows)
            counts = whole = _labelled(targets)
            if len(every) > len(rows):
                whole = _labelled(_targets(dataset, source.tasks, every))
            for task, count in whole.items():
                totals[task] = totals.get(task, 0) + count
            if not len(rows):
                continue
            inputs: ModelInputs | KeptBatch
            if run.activations is None:
                inputs = dataset.inputs(rows, run.model.encoder.pad_id)
            else:
                inputs = run.activations.training_batch(source.dataset, rows)
            batches.append(LabelledBatch(inputs, targets, source.dataset, rows, counts))
    return StepBatches(batches, list(totals), totals, sentences)


def _mine(run: Run, tasks: Sequence[str], drawn: Rows, number: int) -> Rows:
    """Return this process's part of a batch.

    Scored pairs are compared with all other pairs of their batch, so that such a batch is one
    process's, each in turn.
    """
    processes = run.processes
    if all(run.config.tasks[task].kind != SIMILARITY for task in tasks):
        return processes.share(drawn)
    turn = (run.state.step + number) % processes.count
    return drawn if turn == processes.rank else drawn[:0]


def _targets(dataset: Dataset, tasks: Sequence[str], rows: Rows) -> dict[str, Tensor]:
    """Gather and pad by task what some rows should come to."""
    width = max(1, int(dataset.words.lengths_of(rows).max(initial=0)))
    return {task: dataset.targets[task].collate(rows, width) for task in tasks}


def _weight(run: Run, losses: Mapping[str, Tensor]) -> float | Tensor:
    """Return what a step's losses weigh, where with its task at weight 1 they would weigh 1.

    The weights of several tasks are their shares of one gradient, which clipping leaves as they
    are: such a step weighs 1.
    """
    tasks = [task for task in losses if task != HELD]
    if len(tasks) != 1:
        return 1.0
    held = run.kept.weight if run.kept is not None and HELD in losses else 0.0
    return (run.balancer.factor(tasks[0]) + held) / (1 + held)


def _labelled(targets: Mapping[str, Tensor]) -> dict[str, int]:
    """Count by task what is labelled."""
    return {task: int((target != UNLABELLED).sum()) for task, target in targets.items()}


def update(run: Run, losses: Mapping[str, Tensor]) -> Tensor:
    """Make the optimiser step, unless a loss or the gradient is not finite.

    Returns:
        Whether the step was made: a bool scalar. Where a device works behind, it decides itself;
        after a step that is to end the run it makes no other one.
    """
    state, config = run.state, run.config
    set_rates(
        run.optimizer,
        rate_factor(state.step, run.total_steps, config.warmup_ratio, config.lr_schedule),
    )
    norm = clip(run.trained(), config.max_grad_norm, _weight(run, losses))
    finite = torch.stack([norm, *losses.values()]).isfinite().all()
    if run.pending and config.on_nonfinite == "stop":
        finite = finite & run.pending[-1].made
    if run.compute.runs_ahead and run.compared is None:
        run.optimizer.step_if(finite)
    elif finite:
        run.optimizer.step()
        if run.compared is not None:
            tasks = {task: float(loss) for task, loss in losses.items() if task != HELD}
            run.balancer.learn(run.compared.gram, tasks)
    run.optimizer.zero_grad(set_to_none=True)
    return finite
