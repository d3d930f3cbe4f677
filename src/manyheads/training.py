"""Training: draw a batch, forward, loss, step, log, evaluate, save.

What is drawn next is a pure function of (seed, epoch, step), and so is dropout; a run that is
stopped anywhere and resumed makes the same model as one that was not.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from manyheads.batching import Step
from manyheads.config import Config
from manyheads.errors import ManyheadsError, listing
from manyheads.interrupts import Interrupted, Stopped, StopRequest
from manyheads.labels import Scheme
from manyheads.metrics import Evaluation, main_metric, numbers
from manyheads.metrics_log import METRICS_FILE, MetricsLog
from manyheads.model_files import BEST
from manyheads.run_lock import RunLock
from manyheads.schedules import plan_epoch
from manyheads.storage import explained
from manyheads.training_run import Run, prepare_run
from manyheads.training_state import Best, Tally
from manyheads.training_step import forward_backward, update


class TrainingError(ManyheadsError):
    """Training that cannot go on."""


class Reporter(Protocol):
    """Shows a run to whoever started it."""

    def begin(self, total_steps: int, done_steps: int, tasks: Sequence[str]) -> None:
        """Training starts, or goes on after `done_steps`."""

    def step(
        self,
        task: str,
        loss: float,
        sentences: int,
        tokens: int,
        *,
        steps: int = 1,
        shared: bool = False,
    ) -> None:
        """A task was trained.

        `steps` is 0 if it shares the optimiser step of the task before; `shared` says that it
        learned from the same sentences, too.
        """

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """An epoch ended; the last entry of the history is its own."""

    def message(self, text: str) -> None:
        """Something worth knowing happened."""

    def end(self) -> None:
        """Training is over, for whatever reason."""


class Quiet:
    """A reporter that says nothing."""

    def begin(self, total_steps: int, done_steps: int, tasks: Sequence[str]) -> None:
        """Say nothing."""

    def step(
        self,
        task: str,
        loss: float,
        sentences: int,
        tokens: int,
        *,
        steps: int = 1,
        shared: bool = False,
    ) -> None:
        """Say nothing."""

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Say nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""

    def end(self) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves."""

    save_dir: Path
    best: Path
    """The best model's folder."""
    best_epoch: int
    best_score: float
    history: Sequence[Mapping[str, Any]]
    """One entry an epoch: losses, metrics and the score that chooses the best."""


def train(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> TrainResult:
    """Train a model as configured.

    Args:
        config: the whole run.
        resume: continue from the newest intact checkpoint in `save_dir`; without one, start.
        overwrite: remove another run's checkpoints and model from `save_dir` first.
        reporter: shows progress.

    Raises:
        ManyheadsError: the configuration, data, encoder or folder is at fault.
        TrainingError: the loss is not finite.
        Stopped: SIGINT or SIGTERM asked to stop; the state is saved.
    """
    reporter = reporter or Quiet()
    with explained(config.save_dir):
        Path(config.save_dir).mkdir(parents=True, exist_ok=True)
    with RunLock(config.save_dir):
        # Signals act as ever in here: as long as nothing is trained, nothing need be saved.
        run = prepare_run(config, resume=resume, overwrite=overwrite, say=reporter.message)
        if run.state.finished:
            reporter.message(f"The run in {config.save_dir} is finished; nothing is left to do.")
            return _result(run)
        with (
            StopRequest() as stop,
            MetricsLog(run.save_dir / METRICS_FILE, run.state.log_bytes) as log,
        ):
            reporter.begin(run.total_steps, run.state.step, list(config.tasks))
            try:
                train_loop(run, log, reporter, stop)
            finally:
                reporter.end()
        return _result(run)


def _result(run: Run) -> TrainResult:
    best = run.state.best
    return TrainResult(run.save_dir, run.save_dir / BEST, best.epoch, best.score, run.state.history)


def train_loop(run: Run, log: MetricsLog, reporter: Reporter, stop: StopRequest) -> None:
    """Train from the run's present position to its end."""
    config, state = run.config, run.state
    while not state.finished:
        plan = plan_epoch(
            run.data.sources,
            config.schedule,
            seed=config.seed,
            epoch=state.epoch,
            accumulation=config.gradient_accumulation,
        )
        for number in range(state.step_in_epoch, len(plan)):
            step = plan[number]
            losses = forward_backward(run, step)
            if update(run, losses):
                count(run, step, losses, reporter)
            elif config.on_nonfinite == "skip":
                state.skipped += 1
            else:
                run.save_step(log)
                raise _not_finite(run, step, losses)
            state.step += 1
            state.step_in_epoch += 1
            if state.step % config.log_every == 0:
                log_step(run, log)
            if stop.signal_number is not None:
                raise _stopped(run, run.save_step(log), stop)
            if run.save_is_due() and state.step_in_epoch < len(plan):
                run.save_step(log)
        try:
            path = finish_epoch(run, log, reporter, stop)
        except Interrupted:
            # The epoch's steps are done; a resumed run begins with its evaluation.
            raise _stopped(run, run.save_step(log), stop) from None
        if stop.signal_number is not None and not state.finished:
            raise _stopped(run, path, stop)


def _stopped(run: Run, path: Path, stop: StopRequest) -> Stopped:
    return Stopped(
        f"Stopped after step {run.state.step} of {run.total_steps}; {path} is saved. "
        "Continue with --resume.",
        stop.signal_number or signal.SIGTERM,
    )


def _not_finite(run: Run, step: Step, losses: Mapping[str, Tensor]) -> TrainingError:
    places = []
    for part in step.parts:
        dataset = run.data.datasets[run.data.sources[part.source].dataset]
        places += [dataset.where(int(row)) for batch in part.batches for row in batch]
    told = ", ".join(f"{task} {float(loss):g}" for task, loss in losses.items())
    return TrainingError(
        f"the loss or its gradient is not finite at step {run.state.step + 1} (loss: {told}) on "
        f"the records {listing(places)}",
        fix="The state before this step is saved. Look at these records; lower `learning_rate` or "
        "`head_learning_rate`, use `precision: float32`, or go on without such steps with --resume "
        "--on-nonfinite skip.",
    )


def count(run: Run, step: Step, losses: Mapping[str, Tensor], reporter: Reporter) -> None:
    """Add a step to the tallies, and show it."""
    state = run.state
    for part_number, part in enumerate(step.parts):
        source = run.data.sources[part.source]
        lengths = run.data.datasets[source.dataset].tokens
        tokens = sum(int(lengths.lengths_of(batch).sum()) for batch in part.batches)
        for number, task in enumerate(source.tasks):
            value, first = float(losses[task]), not (number or part_number)
            for tallies in (state.since_log, state.this_epoch):
                tallies.setdefault(task, Tally()).add(value, part.records, tokens)
            reporter.step(task, value, part.records, tokens, steps=int(first), shared=number > 0)


def log_step(run: Run, log: MetricsLog) -> None:
    """Write down the losses since the last line of the log."""
    state = run.state
    log.write(
        {
            "event": "step",
            "step": state.step,
            "epoch": state.epoch + 1,
            "loss": {task: tally.loss / tally.steps for task, tally in state.since_log.items()},
            "learning_rate": [group["lr"] for group in run.optimizer.param_groups],
            "skipped": state.skipped,
            "seconds": round(run.clock.lap(), 3),
        }
    )
    state.since_log = {}


def finish_epoch(run: Run, log: MetricsLog, reporter: Reporter, stop: StopRequest) -> Path:
    """Evaluate, keep the model if it is the best, log and save.

    Returns:
        The epoch's checkpoint.

    Raises:
        Interrupted: a signal came during the evaluation; the run is as it was before it.
    """
    state, config = run.state, run.config
    reporter.message(f"Evaluating epoch {state.epoch + 1} ...")
    evaluation = run.evaluate(stop.check)
    score = best_score(run, evaluation)
    entry = {
        "epoch": state.epoch + 1,
        "step": state.step,
        "loss": {task: tally.loss / tally.steps for task, tally in state.this_epoch.items()},
        "score": score,
        "best": score > state.best.score,
        "metrics": evaluation,
    }
    state.history.append(entry)
    state.epoch, state.step_in_epoch, state.this_epoch = state.epoch + 1, 0, {}
    if entry["best"]:
        state.best = Best(state.epoch, score)
    waited = state.epoch - state.best.epoch
    state.finished = state.epoch >= config.num_epochs or waited >= (
        config.early_stopping or config.num_epochs
    )
    log.write({"event": "epoch", **entry, "seconds": round(run.clock.lap(), 3)})
    reporter.epoch(state.history)
    path = run.save_epoch(log)
    if entry["best"]:
        # After the checkpoint, from which a resumed run can write this folder again.
        run.save_best(evaluation)
    if state.finished and state.epoch < config.num_epochs:
        reporter.message(f"Stopped early: no better model for {waited} epochs (`early_stopping`).")
    return path


def best_score(run: Run, evaluation: Evaluation) -> float:
    """Reduce an evaluation to the number that chooses the best model: larger is better."""
    tasks = evaluation["tasks"]

    def value(task: str, metric: str = "") -> float:
        spec = run.model.head(task).spec(task)
        main = main_metric(spec.kind, spec.scheme or Scheme.BIO)
        return numbers(tasks[task])[metric or main]

    name, _, metric = run.config.best_metric.partition(".")
    if name == "mean":
        return sum(value(task) for task in tasks) / len(tasks)
    return value(name, metric)
