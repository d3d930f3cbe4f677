"""Training: draw a batch, forward, loss, step, log, evaluate, save.

The next batch is a pure function of (seed, epoch, step), and so is dropout: a run that is stopped
at any point and resumed makes the same model as an uninterrupted one.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manyheads.config import Config
from manyheads.data.hold_out import holding_out, splits_of, with_parts
from manyheads.errors import listing, option
from manyheads.evaluation import in_words
from manyheads.storage import BEST, METRICS_FILE, RunLock, best_of, explained
from manyheads.training.balancing import GradientMeans
from manyheads.training.calibrate import calibrate_models, main_metrics
from manyheads.training.data.batching import Step
from manyheads.training.data.schedules import Schedule, plan_epoch
from manyheads.training.distributed import ProcessLost
from manyheads.training.epoch_end import finish_epoch
from manyheads.training.files import kept_until_ready, read_files
from manyheads.training.in_flight import STEPS_AHEAD, InFlightStep, fetch
from manyheads.training.launch import joined
from manyheads.training.metrics_log import MetricsLog, NoLog, restored_log
from manyheads.training.one_run import one_run
from manyheads.training.reporter import Reporter, StepReport
from manyheads.training.run import Run
from manyheads.training.setup import prepare_run
from manyheads.training.signals import Interrupted, Stopped, StopRequest
from manyheads.training.state import RunningMean, TrainingError
from manyheads.training.step import forward_backward, update
from manyheads.training.tensorboard import TENSORBOARD_FOLDER, TensorBoardLog, require_tensorboard


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a finished run."""

    save_dir: Path
    best: Path
    """The best model's folder."""
    best_epoch: int
    best_score: float | None
    """None where nothing was validated (`refit`)."""
    history: Sequence[Mapping[str, Any]]
    """One entry an epoch: losses, metrics, the score that selects the best, and the Pareto front of
    the epochs so far (`front`). A run on all records (`refit`) has no metrics and no score."""
    best_of: Mapping[str, Path] = field(default_factory=dict)
    """By task, the folder of its best model, with `keep_best_per_task`."""
    summary: Sequence[str] = ()
    """The best model's scores on the validation data: a sentence for each task."""


def train(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> TrainResult:
    """Train a model as configured, together with any processes that were launched with this one.

    Args:
        config: the run.
        resume: continue from the newest intact checkpoint in `save_dir`; start anew if there is
            none.
        overwrite: remove another run's checkpoints and model from `save_dir` first.
        reporter: shows progress, in the first process.

    Raises:
        ManyheadsError: the configuration, data, encoder, folder or reporter is at fault, or another
            thread trains.
        TrainingError: the loss or the weights are not finite.
        ProcessLost: another process of the run is gone.
        Stopped: SIGINT, SIGTERM or SIGHUP stopped the run; its state is saved.
        BaseException: what a callback raised; the state is saved.
    """
    given = Reporter() if reporter is None else Reporter.checked(reporter)
    config = holding_out(config)
    with one_run(), joined(config.device) as processes, ExitStack() as stack:
        reporter = given if processes.is_first else Reporter()
        with processes.failing_together(), ExitStack() as starting:
            if processes.is_first:
                stack.enter_context(_own_folder(config))
                kept = kept_until_ready(Path(config.save_dir), overwrite=overwrite)
                starting.enter_context(kept)
                read_files(config, resume=resume, overwrite=overwrite, report=reporter.message)
            if splits_of(config) or config.refit is not None:
                # No process reads the parts before the first has written them.
                processes.exchange(None)
                config = with_parts(config)
            # Signals keep their default effect here: before training there is nothing to save.
            run = prepare_run(
                config, resume=resume, overwrite=overwrite, report=reporter.message,
                processes=processes,
            )  # fmt: skip
            # No process trains before the first has cleared the folder.
            processes.exchange(None)
        if run.state.finished:
            if processes.is_first:
                # The session that trained the last epoch may have been killed before it calibrated.
                calibrate_models(run, reporter.message, only_missing=True)
            reporter.message(f"The run in {config.save_dir} is finished; nothing is left to do.")
            return _result(run)
        with (
            StopRequest(reporter.message) as stop,
            _log(run, reporter.message) as log,
            _tensorboard(run, log),
        ):
            main = main_metrics(run)
            tasks = {task: main[task] for task in config.tasks}
            reporter.begin(run.total_steps, run.state.step, tasks)
            try:
                train_loop(run, log, reporter, stop)
            except ProcessLost as lost:
                flush(run, log, reporter)
                raise _left_alone(run, log, lost) from lost
            finally:
                reporter.end()
        return _result(run)


@contextmanager
def _own_folder(config: Config) -> Iterator[None]:
    """Create `save_dir` if needed, and lock it against other runs."""
    if config.tensorboard:
        require_tensorboard()
    with explained(config.save_dir):
        Path(config.save_dir).mkdir(parents=True, exist_ok=True)
    with RunLock(config.save_dir):
        yield


def _left_alone(run: Run, log: MetricsLog, lost: ProcessLost) -> ProcessLost:
    """Save the state between two steps, after another process was lost."""
    if not run.processes.is_first or not run.state.step_in_epoch:
        return lost
    path = run.save_step(log)
    return ProcessLost(lost.found, fix=f"{lost.fix} {path} is saved.")


def _log(run: Run, report: Callable[[str], None]) -> MetricsLog:
    """Open the metrics log, which only the first process writes."""
    if not run.processes.is_first:
        return NoLog()
    state = run.state
    return restored_log(run.save_dir / METRICS_FILE, state.log_bytes, state.history, report)


def _tensorboard(run: Run, log: MetricsLog) -> AbstractContextManager[object]:
    """Copy the log's lines to TensorBoard, if configured."""
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
        _summary(run),
    )


def _summary(run: Run) -> list[str]:
    if not run.state.best.epoch:
        return []
    specs = {task: run.model.head(task).spec(task) for task in run.model.heads}
    return in_words(run.state.history[run.state.best.epoch - 1]["metrics"]["tasks"], specs)


def train_loop(run: Run, log: MetricsLog, reporter: Reporter, stop: StopRequest) -> None:
    """Train from the run's current position to its end."""
    config, state = run.config, run.state
    while not state.finished:
        run.balancer.begin_epoch([entry["loss"] for entry in state.history])
        plan = plan_epoch(
            run.data.sources,
            Schedule.of(config),
            seed=config.seed,
            epoch=state.epoch,
            ahead=state.ahead,
        )
        for number in range(state.step_in_epoch, len(plan)):
            step = plan[number]
            result = forward_backward(run, step)
            made = update(run, result)
            run.in_flight.append(InFlightStep(step, state.step, state.step_in_epoch, result, made))
            state.step += 1
            state.step_in_epoch += 1
            last = state.step_in_epoch == len(plan)
            logs = state.step % config.log_every == 0
            ahead = run.compute.is_async and len(run.in_flight) < STEPS_AHEAD
            if logs or last or not ahead:
                flush(run, log, reporter)
            if logs:
                log_step(run, log)
            _stop_if_failed(reporter, stop)
            if run.processes.hears(stop):
                flush(run, log, reporter)
                raise _stopped(run, run.save_step(log), stop, reporter)
            if run.save_is_due() and not last:
                flush(run, log, reporter)
                run.save_step(log)
        try:
            path = finish_epoch(run, log, reporter, stop)
        except Interrupted:
            # The epoch's steps are done; a resumed run starts with its evaluation.
            raise _stopped(run, run.save_step(log), stop, reporter) from None
        _stop_if_failed(reporter, stop)
        if run.processes.hears(stop) and not state.finished:
            raise _stopped(run, path, stop, reporter)
    if reporter.failure is not None:
        raise reporter.failure


def _stop_if_failed(reporter: Reporter, stop: StopRequest) -> None:
    """Stop all processes, as a signal would, if a callback has raised an exception."""
    if reporter.failure is not None:
        stop.signal_number = signal.SIGTERM


def _stopped(run: Run, path: Path, stop: StopRequest, reporter: Reporter) -> BaseException:
    """Return what ends a run that was stopped and saved: a callback's exception, or `Stopped`."""
    text = (
        f"Stopped after step {run.state.step} of {run.total_steps}; {path} is saved. "
        f"Continue with {option('--resume')}."
    )
    if reporter.failure is not None:
        reporter.message(text)
        return reporter.failure
    return Stopped(text if run.processes.is_first else "", stop.signal_number or signal.SIGTERM)


def flush(run: Run, log: MetricsLog, reporter: Reporter) -> None:
    """Wait for the steps in flight, add them to the running means, and report them.

    Raises:
        TrainingError: a loss or gradient was not finite. The weights and the saved state are those
            before that step.
    """
    state = run.state
    steps, run.in_flight = run.in_flight, []
    for one, (made, losses) in zip(steps, fetch(steps), strict=True):
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
    shown = ", ".join(f"{name} {loss:g}" for name, loss in losses.items())
    return TrainingError(
        f"the loss or its gradient is not finite at step {run.state.step + 1} (loss: {shown}) on "
        f"the records {listing(places)}",
        fix="The state before this step is saved. Look at these records; lower `learning_rate` or "
        "`head_learning_rate`, use `precision: float32`, or continue without such steps with "
        + option("--resume --on-nonfinite skip", '`resume=True, on_nonfinite="skip"`')
        + ".",
    )


def count(run: Run, done: InFlightStep, losses: Mapping[str, float], reporter: Reporter) -> None:
    """Add a step to the running means, and report it."""
    if done.result.gradients is not None:
        run.state.gradients_since_log.add(done.result.gradients)
    for report in step_reports(run, done, losses):
        for means in (run.state.since_log, run.state.this_epoch):
            mean = means.setdefault(report.task, RunningMean())
            mean.add(report.loss, report.sentences, report.tokens)
        reporter.step(report)


def step_reports(run: Run, done: InFlightStep, losses: Mapping[str, float]) -> Iterator[StepReport]:
    """Report a step's losses: by source those of the tasks with labels, then the further terms'."""
    steps = 1
    for part in done.step.parts:
        source = run.data.sources[part.source]
        dataset = run.data.datasets[source.dataset]
        read = [dataset.with_partners(batch) for batch in part.batches]
        tokens = sum(int(dataset.tokens.lengths_of(rows).sum()) for rows in read)
        labelled = [task for task in source.tasks if task in done.result.labelled]
        for number, task in enumerate(labelled):
            yield StepReport(task, losses[task], part.records, tokens, steps, number > 0)
            steps = 0
    for term in run.terms:
        records = done.step.records
        yield StepReport(term.name, losses[term.name], records, 0, steps, shared=not steps)
        steps = 0


def log_step(run: Run, log: MetricsLog) -> None:
    """Log the losses, and any gradient statistics, since the last line of the log."""
    state = run.state
    gradients = state.gradients_since_log.means()
    log.write(
        {
            "event": "step",
            "step": state.step,
            "epoch": state.epoch + 1,
            "loss": {name: loss.mean for name, loss in state.since_log.items()},
            "weight": {
                task: float(run.balancer.factor(task))
                for task in state.since_log
                if task in run.config.tasks
            },
            **({"gradients": gradients} if gradients else {}),
            "learning_rate": [group["lr"] for group in run.optimizer.param_groups],
            "skipped": state.skipped,
            "seconds": round(run.clock.lap(), 3),
        }
    )
    state.since_log, state.gradients_since_log = {}, GradientMeans()
