"""Training: draw a batch, forward, loss, step, log, evaluate, save.

What is drawn next is a pure function of (seed, epoch, step), and so is dropout; a run that is
stopped anywhere and resumed makes the same model as one that was not.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manyheads.config import Config
from manyheads.errors import ManyheadsError, listing
from manyheads.storage import BEST, RunLock, best_of, explained
from manyheads.tasks import Scheme
from manyheads.tasks.metrics import Evaluation, main_metric
from manyheads.training.balancing import GradientTally
from manyheads.training.data.batching import Step
from manyheads.training.data.schedules import Schedule, plan_epoch
from manyheads.training.distillation import HELD
from manyheads.training.distributed import ProcessLost, joined
from manyheads.training.metrics_log import METRICS_FILE, MetricsLog, NoLog
from manyheads.training.pending import STEPS_AHEAD, PendingStep, fetch
from manyheads.training.reporter import Quiet, Reporter
from manyheads.training.run import Run
from manyheads.training.selection import best_value, main_scores, pareto_front, trade_off
from manyheads.training.setup import prepare_run
from manyheads.training.signals import Interrupted, Stopped, StopRequest
from manyheads.training.state import Best, Tally
from manyheads.training.step import forward_backward, update
from manyheads.training.tensorboard import TENSORBOARD_FOLDER, TensorBoardLog, require_tensorboard


class TrainingError(ManyheadsError):
    """Training that cannot go on."""


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves."""

    save_dir: Path
    best: Path
    """The best model's folder."""
    best_epoch: int
    best_score: float
    history: Sequence[Mapping[str, Any]]
    """One entry an epoch: losses, metrics, the score that chooses the best, and the epochs so far
    that none beats in all tasks (`front`)."""
    best_of: Mapping[str, Path] = field(default_factory=dict)
    """By task the folder of the model that is best for it, with `keep_best_per_task`."""


def train(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> TrainResult:
    """Train a model as configured, together with the processes that were started with this one.

    Args:
        config: the whole run.
        resume: continue from the newest intact checkpoint in `save_dir`; without one, start.
        overwrite: remove another run's checkpoints and model from `save_dir` first.
        reporter: shows progress, of the first process.

    Raises:
        ManyheadsError: the configuration, data, encoder or folder is at fault.
        TrainingError: the loss is not finite.
        ProcessLost: another process of the run is gone.
        Stopped: SIGINT or SIGTERM asked to stop; the state is saved.
    """
    with joined(config.device) as processes, ExitStack() as stack:
        if reporter is None or not processes.is_first:
            reporter = Quiet()
        with processes.failing_together():
            if processes.is_first:
                stack.enter_context(_own_folder(config))
            # Signals act as ever in here: as long as nothing is trained, nothing need be saved.
            run = prepare_run(
                config, resume=resume, overwrite=overwrite, say=reporter.message,
                processes=processes,
            )  # fmt: skip
            # No process trains before the first has made room for what is written.
            processes.exchange(None)
        if run.state.finished:
            reporter.message(f"The run in {config.save_dir} is finished; nothing is left to do.")
            return _result(run)
        with StopRequest() as stop, _log(run) as log, _tensorboard(run, log):
            reporter.begin(run.total_steps, run.state.step, list(config.tasks))
            try:
                train_loop(run, log, reporter, stop)
            except ProcessLost as lost:
                settle(run, log, reporter)
                raise _left_alone(run, log, lost) from lost
            finally:
                reporter.end()
        return _result(run)


@contextmanager
def _own_folder(config: Config) -> Iterator[None]:
    """Make `save_dir`, if need be, and keep other runs out of it."""
    if config.tensorboard:
        require_tensorboard()
    with explained(config.save_dir):
        Path(config.save_dir).mkdir(parents=True, exist_ok=True)
    with RunLock(config.save_dir):
        yield


def _left_alone(run: Run, log: MetricsLog, lost: ProcessLost) -> ProcessLost:
    """Save where the run is, between two steps, after another process was lost."""
    if not run.processes.is_first or not run.state.step_in_epoch:
        return lost
    path = run.save_step(log)
    return ProcessLost(lost.found, fix=f"{lost.fix} {path} is saved.")


def _log(run: Run) -> MetricsLog:
    """Open the metrics log, which the first process alone writes."""
    if not run.processes.is_first:
        return NoLog()
    return MetricsLog(run.save_dir / METRICS_FILE, run.state.log_bytes)


def _tensorboard(run: Run, log: MetricsLog) -> AbstractContextManager[object]:
    """Let TensorBoard have the log's lines, where that is asked for."""
    if not run.config.tensorboard or not run.processes.is_first:
        return nullcontext()
    folder = run.save_dir / TENSORBOARD_FOLDER
    board = TensorBoardLog(folder, run.save_dir / METRICS_FILE, run.state.step)
    log.also = board.write
    return board


def _result(run: Run) -> TrainResult:
    best = run.state.best
    return TrainResult(
        run.save_dir,
        run.save_dir / BEST,
        best.epoch,
        best.score,
        run.state.history,
        {task: run.save_dir / best_of(task) for task in run.state.best_of},
    )


def train_loop(run: Run, log: MetricsLog, reporter: Reporter, stop: StopRequest) -> None:
    """Train from the run's present position to its end."""
    config, state = run.config, run.state
    while not state.finished:
        run.balancer.begin_epoch([entry["loss"] for entry in state.history])
        plan = plan_epoch(
            run.data.sources,
            Schedule.of(config),
            seed=config.seed,
            epoch=state.epoch,
        )
        for number in range(state.step_in_epoch, len(plan)):
            step = plan[number]
            losses = forward_backward(run, step)
            made = update(run, losses)
            run.pending.append(
                PendingStep(step, state.step, state.step_in_epoch, losses, made, run.compared)
            )
            state.step += 1
            state.step_in_epoch += 1
            last = state.step_in_epoch == len(plan)
            logs = state.step % config.log_every == 0
            ahead = run.compute.runs_ahead and len(run.pending) < STEPS_AHEAD
            if logs or last or not ahead:
                settle(run, log, reporter)
            if logs:
                log_step(run, log)
            if run.processes.hears(stop):
                settle(run, log, reporter)
                raise _stopped(run, run.save_step(log), stop)
            if run.save_is_due() and not last:
                settle(run, log, reporter)
                run.save_step(log)
        try:
            path = finish_epoch(run, log, reporter, stop)
        except Interrupted:
            # The epoch's steps are done; a resumed run begins with its evaluation.
            raise _stopped(run, run.save_step(log), stop) from None
        if run.processes.hears(stop) and not state.finished:
            raise _stopped(run, path, stop)


def _stopped(run: Run, path: Path, stop: StopRequest) -> Stopped:
    told = (
        f"Stopped after step {run.state.step} of {run.total_steps}; {path} is saved. "
        "Continue with --resume."
    )
    return Stopped(told if run.processes.is_first else "", stop.signal_number or signal.SIGTERM)


def settle(run: Run, log: MetricsLog, reporter: Reporter) -> None:
    """Wait for the steps that were asked for, add them to the tallies, and show them.

    Raises:
        TrainingError: a loss or gradient was not finite. The weights are those before that step,
            and so is the state, which is saved.
    """
    state = run.state
    pending, run.pending = run.pending, []
    for one, (made, losses) in zip(pending, fetch(pending), strict=True):
        if made:
            count(run, one, losses, reporter)
        elif run.config.on_nonfinite == "skip":
            state.skipped += 1
        else:
            state.step, state.step_in_epoch = one.done, one.done_in_epoch
            run.save_step(log)
            raise _not_finite(run, one.step, losses)


def _not_finite(run: Run, step: Step, losses: Mapping[str, float]) -> TrainingError:
    places = []
    for part in step.parts:
        dataset = run.data.datasets[run.data.sources[part.source].dataset]
        places += [dataset.where(int(row)) for batch in part.batches for row in batch]
    told = ", ".join(f"{task} {loss:g}" for task, loss in losses.items())
    return TrainingError(
        f"the loss or its gradient is not finite at step {run.state.step + 1} (loss: {told}) on "
        f"the records {listing(places)}",
        fix="The state before this step is saved. Look at these records; lower `learning_rate` or "
        "`head_learning_rate`, use `precision: float32`, or go on without such steps with --resume "
        "--on-nonfinite skip.",
    )


def count(run: Run, pending: PendingStep, losses: Mapping[str, float], reporter: Reporter) -> None:
    """Add a step to the tallies, and show it."""
    state, step = run.state, pending.step
    if pending.compared is not None:
        state.gradients_since_log.add(pending.compared)
    for part_number, part in enumerate(step.parts):
        source = run.data.sources[part.source]
        lengths = run.data.datasets[source.dataset].tokens
        tokens = sum(int(lengths.lengths_of(batch).sum()) for batch in part.batches)
        for number, task in enumerate(source.tasks):
            value, first = losses[task], not (number or part_number)
            for tallies in (state.since_log, state.this_epoch):
                tallies.setdefault(task, Tally()).add(value, part.records, tokens)
            reporter.step(task, value, part.records, tokens, steps=int(first), shared=number > 0)
    if HELD in losses:
        value = losses[HELD]
        for tallies in (state.since_log, state.this_epoch):
            tallies.setdefault(HELD, Tally()).add(value, step.records, 0)
        reporter.step(HELD, value, step.records, 0, steps=0, shared=True)


def log_step(run: Run, log: MetricsLog) -> None:
    """Write down the losses, and what is known of gradients, since the last line of the log."""
    state = run.state
    gradients = state.gradients_since_log.means()
    log.write(
        {
            "event": "step",
            "step": state.step,
            "epoch": state.epoch + 1,
            "loss": {task: tally.loss / tally.steps for task, tally in state.since_log.items()},
            "weight": {t: float(run.balancer.factor(t)) for t in state.since_log if t != HELD},
            **({"gradients": gradients} if gradients else {}),
            "learning_rate": [group["lr"] for group in run.optimizer.param_groups],
            "skipped": state.skipped,
            "seconds": round(run.clock.lap(), 3),
        }
    )
    state.since_log, state.gradients_since_log = {}, GradientTally()


def finish_epoch(run: Run, log: MetricsLog, reporter: Reporter, stop: StopRequest) -> Path:
    """Evaluate, keep the model if it is the best, log and save.

    Returns:
        The epoch's checkpoint.

    Raises:
        Interrupted: a signal came during the evaluation; the run is as it was before it.
    """
    state, config = run.state, run.config
    reporter.message(f"Evaluating epoch {state.epoch + 1} ...")
    evaluation = run.processes.led(run.evaluate, stop)
    score, main = best_score(run, evaluation), main_metrics(run)
    points = [main_scores(e["metrics"], main) for e in (*state.history, {"metrics": evaluation})]
    entry = {
        "epoch": state.epoch + 1,
        "step": state.step,
        "loss": {task: tally.loss / tally.steps for task, tally in state.this_epoch.items()},
        "score": score,
        "best": score > state.best.score,
        "front": [i + 1 for i in pareto_front(points)],
        "metrics": evaluation,
    }
    state.history.append(entry)
    state.epoch, state.step_in_epoch, state.this_epoch = state.epoch + 1, 0, {}
    if entry["best"]:
        state.best = Best(state.epoch, score)
    better = []
    if config.keep_best_per_task:
        better = [t for t, v in points[-1].items() if v > state.best_of.get(t, Best()).score]
        state.best_of |= {task: Best(state.epoch, points[-1][task]) for task in better}
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
    for task in better:
        run.save_best(evaluation, best_of(task))
    if state.finished and (told := trade_off(points)):
        reporter.message(told)
    if state.finished and state.epoch < config.num_epochs:
        reporter.message(f"Stopped early: no better model for {waited} epochs (`early_stopping`).")
    return path


def best_score(run: Run, evaluation: Evaluation) -> float:
    """Reduce an evaluation to the number that chooses the best model: larger is better."""
    return best_value(run.config, evaluation, main_metrics(run))


def main_metrics(run: Run) -> dict[str, str]:
    """Name each task's main metric."""
    specs = [run.model.head(task).spec(task) for task in run.model.heads]
    return {spec.name: main_metric(spec.kind, spec.scheme or Scheme.BIO) for spec in specs}
