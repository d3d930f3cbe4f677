"""TensorBoard shows each value of the metrics log once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from equal_runs import assert_resumes, stop_at
from manyheads.config import Config
from manyheads.errors import RequestError
from manyheads.training import Stopped, train
from manyheads.training.signals import Interrupted
from training_setup import Killed, Spy, config

Points = dict[str, list[tuple[int, float]]]


def shown(made: Config) -> Points:
    """A run's event files as TensorBoard reads them: points (step, value) by name."""
    events = EventAccumulator(str(Path(made.save_dir) / "tensorboard"), {"scalars": 0})
    events.Reload()
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def lines(made: Config, event: str) -> list[dict[str, Any]]:
    text = (Path(made.save_dir) / "metrics.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if line["event"] == event]


def rounded(points: list[tuple[int, float]]) -> Any:
    """Event files hold single-precision numbers."""
    return [(step, pytest.approx(value, rel=1e-6)) for step, value in points]


def test_it_shows_the_values_of_the_metrics_log(tmp_path: Path) -> None:
    made = config(
        tmp_path, tensorboard=True, schedule="together", balancing="pcgrad", num_epochs=2,
        log_every=2,
    )  # fmt: skip
    train(made)
    points, steps, epochs = shown(made), lines(made, "step"), lines(made, "epoch")
    assert points["loss/ner"] == rounded([(line["step"], line["loss"]["ner"]) for line in steps])
    assert points["weight/ner"] == [(line["step"], 1) for line in steps]
    for quantity in ("norm", "count"):
        expected = [(line["step"], line["gradients"][quantity]["ner"]) for line in steps]
        assert points[f"gradients/{quantity}/ner"] == rounded(expected)
    pair = "classification/ner"
    expected = [(line["step"], line["gradients"]["cosine"][pair]) for line in steps]
    assert points[f"gradients/cosine/{pair}"] == rounded(expected)
    found = [(line["step"], line["metrics"]["tasks"]["ner"]["f1"]) for line in epochs]
    assert points["validation/ner/f1"] == rounded(found)
    assert points["validation/score"] == rounded([(e["step"], e["score"]) for e in epochs])
    assert points["epoch_loss/ner"] == rounded([(e["step"], e["loss"]["ner"]) for e in epochs])
    assert not [name for name in points if "per_" in name or "seconds" in name]


@pytest.mark.parametrize("last", [2, 5, 7, 8])
def test_a_resumed_run_shows_each_point_once(last: int, tmp_path: Path) -> None:
    whole, stopped = (
        config(tmp_path / name, tensorboard=True, checkpoint_every=3, num_epochs=2)
        for name in ("whole", "stopped")
    )
    assert_resumes(whole, stopped, last)
    expected = {name: rounded(points) for name, points in shown(whole).items()}
    assert shown(stopped) == expected


def test_a_run_that_stops_in_its_evaluation_shows_the_epoch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = config(tmp_path / "whole", tensorboard=True)
    train(whole)
    made = config(tmp_path / "made", tensorboard=True)

    def end_with(error: type[BaseException]) -> Callable[..., Any]:
        def end(*_: Any) -> Any:
            raise error

        return end

    # After the epoch's steps, before its metrics; then after these, before they are saved.
    for method, error, seen in (
        ("evaluate", Interrupted, Stopped), ("save_epoch", Killed, Killed),
    ):  # fmt: skip
        with monkeypatch.context() as patched:
            patched.setattr(f"manyheads.training.run.Run.{method}", end_with(error))
            with pytest.raises(seen):
                train(made, resume=method == "save_epoch")
    train(made, resume=True)
    assert shown(made) == {name: rounded(points) for name, points in shown(whole).items()}


def test_a_run_that_turns_it_on_later_shows_all_earlier_values(tmp_path: Path) -> None:
    made = config(tmp_path, num_epochs=2)

    with pytest.raises(Killed):
        train(made, reporter=Spy(stop_at(10)))
    train(config(tmp_path, num_epochs=2, tensorboard=True), resume=True)
    points = shown(made)
    logged = [step for name in points if name.startswith("loss/") for step, _ in points[name]]
    assert sorted(logged) == [line["step"] for line in lines(made, "step")]


def test_a_new_run_in_the_folder_removes_earlier_event_files(tmp_path: Path) -> None:
    train(config(tmp_path, tensorboard=True, num_epochs=2))
    made = config(tmp_path, tensorboard=True)
    train(made, overwrite=True)
    assert [step for step, _ in shown(made)["validation/score"]] == [
        line["step"] for line in lines(made, "epoch")
    ]
    train(config(tmp_path), overwrite=True)
    assert not (tmp_path / "saved" / "tensorboard").exists()


def test_without_the_package_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    made = config(tmp_path, tensorboard=True)
    with pytest.raises(RequestError, match=r"needs TensorBoard.*\[tensorboard\]"):
        train(made)
    assert not list(Path(made.save_dir).glob("*"))
