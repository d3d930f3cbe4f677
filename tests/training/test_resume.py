"""A run stopped at any point and resumed gives a bit-identical model."""

from __future__ import annotations

import functools
import itertools
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import manyheads
from equal_runs import (
    STEPS,
    assert_equal,
    assert_resumes,
    assert_same_run,
    calibration_of,
    hard_config,
    state_of,
    stop_at,
)
from manyheads.errors import ModelError, RequestError
from manyheads.modeling import epoch_path, list_checkpoints, step_path
from manyheads.storage import read_manifest
from manyheads.training import Run, StepResult, Stopped, calibrate, forward_backward, train
from manyheads.training.data import Step
from training_setup import (
    Killed,
    Spy,
    config,
    digest,
    log_lines,
    sentences,
    write_records,
)

TASKS = {"intent": {"kind": "classification"}, "ner": {"kind": "tagging"}}


def signal_at(step: int, number: int = signal.SIGTERM) -> Callable[[int], None]:
    def send(done: int) -> None:
        if done == step:
            assert signal.getsignal(number) not in (signal.SIG_DFL, None)
            signal.raise_signal(number)

    return send


@functools.cache
def undisturbed(base: Path) -> dict[str, Any]:
    folder = base / "undisturbed"
    train(hard_config(folder))
    return state_of(folder / "saved")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


def compare(base: Path, save_dir: Path) -> None:
    """Compare with the undisturbed run, except for the folder that the files of `best` name."""
    expected, found = undisturbed(base), state_of(save_dir)
    # The files of a model name the folder where it was saved.
    for name in ("manyheads.json", "README.md"):
        expected["best"].pop(name, None)
        found["best"].pop(name)
    assert_equal(expected, found)


@pytest.mark.parametrize(
    ("step", "every"),
    [(1, None), (2, 1), (3, 2), (5, 2), (6, None), (7, 3), (8, 1), (9, 4), (STEPS, 2)],
)
def test_a_killed_run_resumes_to_the_same_result(
    base: Path, tmp_path: Path, step: int, every: int | None
) -> None:
    settings = hard_config(tmp_path, checkpoint_every=every)
    with pytest.raises(Killed):
        train(settings, reporter=Spy(stop_at(step)))
    spy = Spy()
    train(settings, resume=True, reporter=spy)
    assert spy.said("Continuing from" if every or step > STEPS // 2 else "from the beginning")
    compare(base, tmp_path / "saved")


def test_a_killed_run_with_a_token_budget_resumes_to_the_same_result(tmp_path: Path) -> None:
    train(hard_config(tmp_path / "a", tokens_per_batch=40))
    settings = hard_config(tmp_path / "b", tokens_per_batch=40, checkpoint_every=2)
    with pytest.raises(Killed):
        train(settings, reporter=Spy(stop_at(3)))
    spy = Spy()
    train(settings, resume=True, reporter=spy)
    assert spy.said("Resumed after step 2 of")
    expected, found = (state_of(tmp_path / name / "saved") for name in ("a", "b"))
    assert_equal(expected["model"], found["model"])
    assert_equal(expected["log"], found["log"])


def test_a_killed_run_with_few_labels_of_a_task_resumes_to_the_same_log(tmp_path: Path) -> None:
    records = sentences(12, 3)
    for record in records[2:]:
        del record["ner"]
    write_records(tmp_path / "few.jsonl", records)
    whole, stopped = (
        config(
            tmp_path, save_dir=str(tmp_path / name), train_file=str(tmp_path / "few.jsonl"),
            schedule="joint", balancing="dwa", batch_size=2, num_epochs=4, log_every=4,
            checkpoint_every=every,
        )
        for name, every in (("whole", None), ("stopped", 5))
    )  # fmt: skip
    assert_resumes(whole, stopped, 13)


def test_a_run_killed_in_every_step_resumes_to_the_same_result(base: Path, tmp_path: Path) -> None:
    settings = hard_config(tmp_path, checkpoint_every=1)
    with pytest.raises(Killed):
        train(settings, reporter=Spy(stop_at(2)))
    for done in range(1, STEPS):
        spy = Spy(stop_at(2))
        if done < STEPS - 1:
            with pytest.raises(Killed):
                train(settings, resume=True, reporter=spy)
        else:
            train(settings, resume=True, reporter=spy)
        assert spy.said(f"Resumed after step {done} of {STEPS}")
    compare(base, tmp_path / "saved")


def test_no_step_depends_on_random_numbers_drawn_elsewhere(base: Path, tmp_path: Path) -> None:
    def draw(step: int) -> None:
        torch.rand(step)

    train(hard_config(tmp_path), reporter=Spy(draw))
    expected, found = undisturbed(base), state_of(tmp_path / "saved")
    assert_equal(expected["model"], found["model"])
    assert_equal(expected["log"], found["log"])


@pytest.mark.parametrize(
    ("step", "number", "status"), [(2, signal.SIGTERM, 143), (5, signal.SIGINT, 130)]
)
def test_a_signal_ends_the_step_saves_and_says_how_to_go_on(
    base: Path, tmp_path: Path, step: int, number: signal.Signals, status: int
) -> None:
    settings = hard_config(tmp_path)
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Stopped, match=rf"after step {step} of {STEPS}; .*mtl_step{step}.pt is saved"
                       r".*`resume=True`") as caught:  # fmt: skip
        train(settings, reporter=Spy(signal_at(step, number)))
    assert caught.value.exit_status == status
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert step_path(tmp_path / "saved", step).exists()
    train(settings, resume=True)
    compare(base, tmp_path / "saved")


def test_each_line_is_logged_once_if_checkpoints_are_more_frequent(tmp_path: Path) -> None:
    train(hard_config(tmp_path / "a", log_every=4))
    settings = hard_config(tmp_path / "b", log_every=4, checkpoint_every=3)
    with pytest.raises(Killed):
        # The log has a line for step 8, after the checkpoint of step 6.
        train(settings, reporter=Spy(stop_at(9)))
    with pytest.raises(Killed):
        # Nothing is written between truncating the log and the next save.
        train(hard_config(tmp_path / "b", log_every=4, checkpoint_every=1), resume=True,
              reporter=Spy(stop_at(2)))  # fmt: skip
    train(settings, resume=True)
    assert log_lines(tmp_path / "b" / "saved") == log_lines(tmp_path / "a" / "saved")


@pytest.fixture(scope="module")
def stopped(base: Path) -> Path:
    """The folder of a run that was killed in its second epoch, and has a best model."""
    settings = hard_config(base / "stopped", checkpoint_every=1)
    with pytest.raises(Killed):
        train(settings, reporter=Spy(stop_at(8)))
    return base / "stopped"


@pytest.fixture
def copied(stopped: Path, tmp_path: Path) -> Path:
    """A copy of that run, which a test may change."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_without_a_checkpoint_a_resumed_run_starts_and_reports_it(
    base: Path, tmp_path: Path
) -> None:
    spy = Spy()
    train(hard_config(tmp_path), resume=True, reporter=spy)
    assert spy.said("There is no checkpoint")
    assert spy.said("training starts from the beginning")
    compare(base, tmp_path / "saved")


def test_a_checkpoint_alone_is_enough_to_resume(base: Path, stopped: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    shutil.copy(epoch_path(stopped / "saved", 1), tmp_path / "saved")
    spy = Spy()
    train(hard_config(tmp_path), resume=True, reporter=spy)
    assert_equal(undisturbed(base)["model"], state_of(tmp_path / "saved")["model"])
    assert spy.said("metrics.jsonl is missing or cut off")
    epochs = [line["epoch"] for line in log_lines(tmp_path / "saved") if line["event"] == "epoch"]
    assert epochs == [1, 2]


def test_a_finished_run_reports_it_and_trains_no_further(base: Path, tmp_path: Path) -> None:
    first = train(hard_config(tmp_path))
    before = digest(tmp_path / "saved")
    spy = Spy()
    again = train(hard_config(tmp_path), resume=True, reporter=spy)
    assert spy.said("is finished; nothing is left to do")
    assert not spy.losses
    assert (again.best_epoch, again.best_score) == (first.best_epoch, first.best_score)
    assert digest(tmp_path / "saved") == before


def test_a_finished_run_continues_with_more_epochs_and_reports_the_learning_rate(
    base: Path, tmp_path: Path
) -> None:
    train(hard_config(tmp_path))
    spy = Spy()
    longer = train(hard_config(tmp_path, num_epochs=3), resume=True, reporter=spy)
    assert len(longer.history) == 3
    assert spy.said("started with 2 epochs and continues to 3. The learning rate")
    assert epoch_path(tmp_path / "saved", 3).exists()


def test_an_annealed_run_that_continues_with_more_epochs_skips_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: Counter[tuple[int, int]] = Counter()

    def counted(run: Run, step: Step) -> StepResult:
        for part in step.parts:
            seen.update((part.source, int(row)) for batch in part.batches for row in batch)
        return forward_backward(run, step)

    monkeypatch.setattr("manyheads.training.loop.forward_backward", counted)
    write_records(tmp_path / "classes.jsonl", sentences(24, 3, fields=["label"]))
    write_records(tmp_path / "tags.jsonl", sentences(4, 4, fields=["ner"]))
    for epochs in (1, 2):
        train(
            hard_config(tmp_path, num_epochs=epochs, schedule="annealed", gradient_accumulation=1),
            resume=epochs > 1,
        )
    for source, count in enumerate((24, 4)):
        times = [seen[source, row] for row in range(count)]
        assert max(times) - min(times) <= 1


def test_a_run_cannot_have_fewer_epochs_than_it_has_completed(base: Path, tmp_path: Path) -> None:
    train(hard_config(tmp_path))
    before = digest(tmp_path / "saved")
    with pytest.raises(RequestError, match="`num_epochs` is 1, but the run has 2 complete epochs"):
        train(hard_config(tmp_path, num_epochs=1), resume=True)
    assert digest(tmp_path / "saved") == before


def test_a_run_can_end_earlier_but_not_within_an_epoch(copied: Path) -> None:
    before = digest(copied / "saved")
    with pytest.raises(RequestError, match="`num_epochs` is 1, but the run is in its epoch 2"):
        train(hard_config(copied, num_epochs=1), resume=True)
    assert digest(copied / "saved") == before


@pytest.mark.parametrize("killed_in", [2, 3])
def test_a_shorter_run_ends_at_its_new_end_with_rates_that_fall_to_zero(
    base: Path, tmp_path: Path, killed_in: int
) -> None:
    step = 8 if killed_in == 2 else 13
    with pytest.raises(Killed):
        train(hard_config(tmp_path, num_epochs=6, checkpoint_every=1), reporter=Spy(stop_at(step)))
    spy = Spy()
    result = train(hard_config(tmp_path, num_epochs=killed_in), resume=True, reporter=spy)
    assert len(result.history) == killed_in
    assert spy.said(f"started with 6 epochs and ends after {killed_in}. The learning rate follows")
    lines = log_lines(tmp_path / "saved")
    rates = [rate for line in lines for rate in line.get("learning_rate", ())]
    assert min(rates) >= 0


def test_a_run_that_is_resumed_with_as_many_epochs_as_it_has_is_finished(
    base: Path, tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        train(hard_config(tmp_path, num_epochs=6), reporter=Spy(stop_at(8)))
    spy = Spy()
    result = train(hard_config(tmp_path, num_epochs=1), resume=True, reporter=spy)
    assert spy.said("is finished; nothing is left to do")
    assert (len(result.history), spy.losses) == (1, [])
    assert (tmp_path / "saved/best").is_dir()


def test_a_run_that_stopped_early_goes_on_with_more_patience(base: Path, tmp_path: Path) -> None:
    settings = {"num_epochs": 4, "learning_rate": 0.0, "head_learning_rate": 0.0}
    # Nothing is learned, so no epoch is better than the first.
    stopped = train(hard_config(tmp_path, **settings, early_stopping=1))
    assert len(stopped.history) == 2
    longer = train(hard_config(tmp_path, **settings, early_stopping=2), resume=True)
    assert len(longer.history) == 3
    assert len(train(hard_config(tmp_path, **settings), resume=True).history) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 8}, "batch_size is 8 and was 4"),
        ({"tokens_per_batch": 64}, "tokens_per_batch is 64 and was None"),
        ({"seed": 1}, "seed is 1 and was 42"),
        ({"precision": "float32"}, "precision is 'float32' and was 'bf16'"),
        ({"learning_rate": 0.5}, "learning_rate is 0.5 and was 0.001"),
        ({"model_name": "distilbert-base-uncased"}, "model_name is 'distilbert-base-uncased' and"),
    ],
)
def test_a_changed_configuration_is_refused_with_the_key_and_both_values(
    copied: Path, change: dict[str, Any], message: str
) -> None:
    before = digest(copied / "saved")
    with pytest.raises(RequestError, match=f"cannot be resumed.*{message}.*Restore"):
        train(hard_config(copied, **change), resume=True)
    assert digest(copied / "saved") == before


def test_a_changed_task_is_refused_with_its_key(copied: Path) -> None:
    settings = hard_config(copied)
    tasks = {name: task.model_dump() for name, task in settings.tasks.items()}
    tasks["ner"]["dropout"] = 0.0
    with pytest.raises(RequestError, match=r"tasks\.ner\.dropout is 0\.0 and was 0\.3"):
        train(hard_config(copied, tasks=tasks), resume=True)


@pytest.mark.parametrize("file", ["classes", "tags", "valid"])
def test_changed_data_are_refused(copied: Path, file: str) -> None:
    path = copied / f"{file}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([lines[1], lines[0], *lines[2:]]), encoding="utf-8")
    with pytest.raises(RequestError, match="the data's content has changed"):
        train(hard_config(copied), resume=True)


def test_renamed_labels_are_changed_data(copied: Path) -> None:
    path = copied / "classes.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"statement"', '"telling"'), encoding="utf-8")
    with pytest.raises(RequestError, match="the data's content has changed"):
        train(hard_config(copied), resume=True)


def test_a_run_whose_data_and_folder_moved_can_be_resumed(base: Path, copied: Path) -> None:
    (copied / "elsewhere").mkdir()
    for path in copied.glob("*.jsonl"):
        path.rename(copied / "elsewhere" / path.name)
    (copied / "saved").rename(copied / "elsewhere" / "saved")
    train(hard_config(copied / "elsewhere", checkpoint_every=3, log_every=1), resume=True)
    compare(base, copied / "elsewhere" / "saved")


@pytest.mark.parametrize("way", ["flipped", "cut", "another"])
def test_a_damaged_checkpoint_is_skipped_with_a_message(base: Path, copied: Path, way: str) -> None:
    newest = step_path(copied / "saved", 7)
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes({"flipped": data, "cut": data[:5000], "another": b"something"}[way])
    spy = Spy()
    train(hard_config(copied), resume=True, reporter=spy)
    assert spy.said("skipped a checkpoint")
    assert spy.said(newest.name)
    assert spy.said(f"Continuing from {epoch_path(copied / 'saved', 1)}")
    compare(base, copied / "saved")


def test_a_run_with_only_damaged_checkpoints_does_not_start_anew(copied: Path) -> None:
    for file in list_checkpoints(copied / "saved"):
        file.path.write_bytes(b"damaged")
    before = digest(copied / "saved")
    with pytest.raises(RequestError, match=r"no checkpoint is intact.*`overwrite=True`"):
        train(hard_config(copied), resume=True)
    assert digest(copied / "saved") == before


def test_a_best_model_without_a_checkpoint_is_not_replaced(copied: Path) -> None:
    for file in list_checkpoints(copied / "saved"):
        file.path.unlink()
    before = digest(copied / "saved")
    with pytest.raises(RequestError, match=r"holds another run \(best\).*`overwrite=True`"):
        train(hard_config(copied), resume=True)
    assert digest(copied / "saved") == before


@pytest.mark.parametrize("way", ["gone", "flipped", "no heads", "another run's"])
def test_a_best_model_that_is_damaged_is_written_again(base: Path, copied: Path, way: str) -> None:
    best = copied / "saved" / "best"
    weights = best / "model.safetensors"
    before = digest(best)
    if way == "gone":
        shutil.rmtree(best)
    elif way == "flipped":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif way == "no heads":
        (best / "heads.safetensors").unlink()
    else:
        other = hard_config(copied, seed=7, save_dir=str(copied / "other"), num_epochs=1)
        train(other)
        shutil.rmtree(best)
        (copied / "other" / "best").rename(best)
        assert digest(best) != before
    spy = Spy(stop_at(1))
    with pytest.raises(Killed):
        train(hard_config(copied), resume=True, reporter=spy)
    assert spy.said(f"Wrote {best} again from the checkpoint of epoch 1")
    assert digest(best)["model.safetensors"] == before["model.safetensors"]
    assert digest(best)["heads.safetensors"] == before["heads.safetensors"]
    train(hard_config(copied), resume=True)
    compare(base, copied / "saved")


def test_a_best_model_that_cannot_be_written_again_is_named(copied: Path) -> None:
    epoch_path(copied / "saved", 1).unlink()
    shutil.rmtree(copied / "saved" / "best")
    with pytest.raises(ModelError, match=r"the best model, that of epoch 1, is missing"):
        train(hard_config(copied), resume=True)


def test_a_checkpoint_is_written_before_the_best_model_that_it_can_restore(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(run: Run, epoch: int, folder: str) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Run, "save_best", killed)
        with pytest.raises(Killed):
            train(hard_config(tmp_path))
    assert [file.path.name for file in list_checkpoints(tmp_path / "saved")] == ["mtl_epoch1.pt"]
    train(hard_config(tmp_path), resume=True)
    compare(base, tmp_path / "saved")


def test_a_checkpoint_left_by_a_kill_before_pruning_is_removed_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = hard_config(tmp_path, checkpoint_every=1)
    with monkeypatch.context() as patched:
        patched.setattr("manyheads.training.run.prune", lambda save_dir, keep: ())
        train(settings)
    left = [file.path.name for file in list_checkpoints(tmp_path / "saved")]
    assert f"mtl_step{STEPS - 1}.pt" in left
    train(settings, resume=True)
    kept = [file.path.name for file in list_checkpoints(tmp_path / "saved")]
    assert kept == ["mtl_epoch1.pt", "mtl_epoch2.pt"]


@pytest.mark.parametrize("lora", [None, {"rank": 2, "targets": "all"}])
def test_a_run_killed_before_its_calibration_resumes_to_the_same_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: dict[str, Any] | None
) -> None:
    def killed(*rest: Any, **options: Any) -> None:
        raise Killed

    write_records(tmp_path / "valid.jsonl", sentences(60, 2))
    whole, stopped = (
        config(
            tmp_path, save_dir=str(tmp_path / name), tasks=TASKS, num_epochs=2, lora=lora,
            learning_rate=0.01,
        )
        for name in ("whole", "stopped")
    )  # fmt: skip
    train(whole)
    with monkeypatch.context() as ending:
        ending.setattr("manyheads.training.epoch_end.calibrate_models", killed)
        with pytest.raises(Killed):
            train(stopped)
    assert not calibration_of(tmp_path / "stopped")
    train(stopped, resume=True)
    assert calibration_of(tmp_path / "whole")["tasks"]
    assert_same_run(tmp_path / "whole", tmp_path / "stopped", epoch=2)


def test_a_run_whose_calibration_failed_is_complete_and_resuming_it_calibrates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(tmp_path / "valid.jsonl", sentences(30, 2))
    few = config(tmp_path, tasks={"classification": {"kind": "classification"}})
    spy = Spy()
    with monkeypatch.context() as broken:
        broken.setattr(calibrate, "fit_calibrations", lambda *rest: 1 // 0)
        result = train(few, reporter=spy)
    assert spy.said("are not calibrated (integer division or modulo by zero)")
    assert not read_manifest(result.best).calibration
    assert train(few, resume=True).best == result.best
    assert read_manifest(result.best).calibration["tasks"]["classification"]["answers"] == 30


@pytest.mark.parametrize("improves", [False, True])
def test_a_continued_run_keeps_the_users_calibration_or_says_that_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, improves: bool
) -> None:
    write_records(tmp_path / "valid.jsonl", sentences(30, 2))
    settings: dict[str, Any] = {"tasks": {"classification": {"kind": "classification"}}}
    best = train(config(tmp_path, **settings)).best
    other = write_records(tmp_path / "other.jsonl", sentences(40, 5, fields=["label"]))
    manyheads.calibrate(best, data=other)
    calibration = read_manifest(best).calibration
    assert calibration["tasks"]["classification"]["source"] == "records of other.jsonl"
    scores = itertools.count(1000, 1000) if improves else itertools.count(-1000, -1000)
    monkeypatch.setattr("manyheads.training.epoch_end.best_value", lambda *given: next(scores))
    spy = Spy()
    train(config(tmp_path, **settings, num_epochs=4), resume=True, reporter=spy)
    told = "the new best replaces a model with calibration or thresholds; make them again by"
    assert spy.said(told) == improves
    assert (read_manifest(best).calibration == calibration) == (not improves)
