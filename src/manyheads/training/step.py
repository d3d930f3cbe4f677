"""One optimiser step: the batches' losses and gradients, and the update of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from manyheads.modeling import moved
from manyheads.training.balancing import Backward
from manyheads.training.data.batching import Step, step_seed
from manyheads.training.in_flight import StepResult
from manyheads.training.optimizer import clip, rate_factor, set_rates
from manyheads.training.run import Run
from manyheads.training.step_batches import LabelledBatch, load_batches


def forward_backward(run: Run, step: Step) -> StepResult:
    """Accumulate the gradients of a step's batches, over all processes.

    A task's loss is the mean over all of its labels in the step, so a step of several batches has
    the gradient of one large batch. The losses of a step's sources are added.
    """
    run.go_to(run.state.step)
    backward = run.balancer.backward(run.model.encoder, run.state.step)
    unlabelled = _unlabelled_losses(run, backward)
    loaded = load_batches(run, step)
    run.freezing.train_mode()
    _seed(run.compute.device, step_seed(run.config.seed, run.state.step, run.processes.rank))
    losses = {task: torch.zeros((), device=run.compute.device) for task in loaded.totals}
    losses |= unlabelled
    for batch in loaded.batches:
        outputs = _outputs(run, batch)
        tasks, terms = _task_losses(run, batch, outputs), _term_losses(run, batch, outputs)
        share = {name: loaded.share(name, batch) for name in (*tasks, *terms)}
        for name, loss in (tasks | terms).items():
            losses[name] = losses[name] + share[name] * loss.detach()
        backward.add(
            {task: run.balancer.term(task, loss, share[task]) for task, loss in tasks.items()},
            [term.weight * share[term.name] * terms[term.name] for term in run.terms],
        )
    gradients = backward.finish(loaded.labelled)
    losses = run.processes.add_up(run.trained(), losses)
    return StepResult(losses, loaded.labelled, gradients)


def _unlabelled_losses(run: Run, backward: Backward) -> dict[str, Tensor]:
    """Add the gradients of the terms' unlabelled sentences; returns each term's loss."""
    losses = {}
    for term in run.terms:
        with run.compute.autocast():
            loss = term.unlabelled_loss(run.model, run.state.step, run.processes.share)
        if loss is None:
            losses[term.name] = torch.zeros((), device=run.compute.device)
        else:
            backward.add({}, [term.weight * loss])
            losses[term.name] = loss.detach()
    return losses


def _outputs(run: Run, batch: LabelledBatch) -> Mapping[str, Tensor]:
    """Run a batch through the model, for the tasks that have targets and those that terms read."""
    read = [task for term in run.terms for task in term.tasks(batch.dataset)]
    with run.compute.autocast():
        return batch.forward(tuple(dict.fromkeys((*batch.targets, *read))))


def _task_losses(
    run: Run, batch: LabelledBatch, outputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Compute each task's mean loss over its labels in a batch."""
    return {
        task: run.model.head(task).loss(outputs[task], moved(target, run.compute.device))
        for task, target in batch.targets.items()
    }


def _term_losses(
    run: Run, batch: LabelledBatch, outputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Compute each further term's mean loss over a batch."""
    return {
        term.name: term.loss(run.model, batch.dataset, batch.rows, outputs) for term in run.terms
    }


def _seed(device: torch.device, seed: int) -> None:
    """Seed dropout."""
    if device.type == "cpu":
        # torch.manual_seed records a stack trace for the other devices' generators: 0.1 ms.
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def update(run: Run, result: StepResult) -> Tensor:
    """Make the optimiser step, unless a loss or the gradient is not finite.

    Returns:
        Whether the step was made: a bool scalar. On an asynchronous device the device decides; once
        a step is to stop the run, no later step is made.
    """
    state, config, losses = run.state, run.config, result.losses
    set_rates(
        run.optimizer,
        rate_factor(state.step, run.total_steps, config.warmup_ratio, config.lr_schedule),
    )
    norm = clip(run.trained(), config.max_grad_norm, _loss_scale(run, result.labelled))
    finite = torch.stack([norm, *losses.values()]).isfinite().all()
    if run.in_flight and config.on_nonfinite == "stop":
        finite = finite & run.in_flight[-1].made
    if run.compute.is_async and result.gradients is None:
        run.optimizer.step_if(finite)
    elif finite:
        run.optimizer.step()
        if result.gradients is not None:
            tasks = {task: float(losses[task]) for task in losses if task in run.config.tasks}
            run.balancer.learn(result.gradients.gram, tasks)
    run.optimizer.zero_grad(set_to_none=True)
    return finite


def _loss_scale(run: Run, labelled: Sequence[str]) -> float | Tensor:
    """Return the loss scale relative to a task weight of 1; it multiplies the clipping limit.

    The weights of several tasks divide one gradient among them, which clipping preserves: the
    scale of such a step is 1.

    Args:
        run: the run.
        labelled: the tasks that have labels in the step.
    """
    if len(labelled) != 1:
        return 1.0
    terms = sum(term.weight for term in run.terms)
    return (run.balancer.factor(labelled[0]) + terms) / (1 + terms)
