"""One optimiser step: the batches' losses and gradients, and the change of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from manyheads.batching import Step, step_seed
from manyheads.dataset import UNLABELLED
from manyheads.optimization import clip, rate_factor, set_rates
from manyheads.training_run import Run


def forward_backward(run: Run, step: Step) -> dict[str, Tensor]:
    """Add up the gradients of a step's batches.

    Each task's loss is the mean over all that is labelled in the step, so that a step of several
    batches has the gradient of one large batch.

    Returns:
        Each task's loss before its weight, a float32 scalar.
    """
    model, source = run.model, run.data.sources[step.source]
    dataset = run.data.datasets[source.dataset]
    device = run.compute.device
    model.train()
    torch.manual_seed(step_seed(run.config.seed, run.state.step))
    batches = [dataset.inputs(rows, model.encoder.pad_id) for rows in step.batches]
    targets = {
        task: [
            dataset.targets[task].collate(rows, inputs.word_tokens.shape[1])
            for rows, inputs in zip(step.batches, batches, strict=True)
        ]
        for task in source.tasks
    }
    shares = {task: _shares(parts) for task, parts in targets.items()}
    losses = {task: torch.zeros((), device=device) for task in source.tasks}
    for number, inputs in enumerate(batches):
        with run.compute.autocast():
            outputs = model(inputs.to(device), source.tasks)
        total = torch.zeros((), device=device)
        for task in source.tasks:
            loss = model.head(task).loss(outputs[task], targets[task][number].to(device))
            share = shares[task][number]
            losses[task] = losses[task] + share * loss.detach()
            total = total + run.config.tasks[task].weight * share * loss
        total.backward()  # type: ignore[no-untyped-call]
    return losses


def _shares(targets: Sequence[Tensor]) -> list[float]:
    """Return which share of all that is labelled in some batches each of them holds."""
    counts = [int((part != UNLABELLED).sum()) for part in targets]
    return [count / max(1, sum(counts)) for count in counts]


def update(run: Run, losses: Mapping[str, Tensor]) -> bool:
    """Make the optimiser step, unless a loss or the gradient is not finite.

    Returns:
        Whether the step was made.
    """
    state, config = run.state, run.config
    set_rates(
        run.optimizer,
        rate_factor(state.step, run.total_steps, config.warmup_ratio, config.lr_schedule),
    )
    norm = clip(run.model.parameters(), config.max_grad_norm)
    finite = bool(torch.stack([norm, *losses.values()]).isfinite().all())
    if finite:
        run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return finite
