"""Two processes train the model of one; on failure they end together with a reason."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import forked
import process_jobs
from manyheads.config import make_config
from manyheads.errors import RequestError
from manyheads.modeling import list_checkpoints
from manyheads.training import is_first_process, train
from manyheads.training.data import step_seed
from manyheads.training.distributed import ALONE, Processes
from manyheads.training.launch import joined, refuse_several
from training_setup import encoder_folder, log_lines, sentences, settings, write_records

TASKS = {
    "intent": {"kind": "classification", "dropout": 0.0, "start": "fitted"},
    "ner": {"kind": "tagging", "dropout": 0.0, "decoder": "crf"},
}

Outcome = Mapping[str, Any]

# By name, the settings of each run besides those that all share. None has dropout.
RUNS: Mapping[str, Mapping[str, Any]] = {
    "alternate": {"gradient_accumulation": 2, "num_epochs": 2},
    "joint": {"schedule": "joint", "balancing": "uncertainty"},
    "one record a batch": {"batch_size": 1, "schedule": "together", "num_epochs": 1},
    "frozen": {"freeze": "encoder", "num_epochs": 2},
    # A process without labels of a task beside one with some.
    "small": {"schedule": "joint", "batch_size": 2},
    "terms and pairs": {
        "keep_embeddings": {"weight": 2, "texts": "texts.txt", "batch_size": 3},
        "teacher": {"sources": ["soft.jsonl"], "batch_size": 3},
        "tasks": {**TASKS, "close": {"kind": "similarity", "train_file": "pairs.jsonl",
                                     "valid_file": "pairs.jsonl"}},
    },
}  # fmt: skip


def without_dropout(folder: Path) -> Path:
    """A tiny encoder whose losses do not depend on random numbers."""
    copy = folder / "encoder"
    if not copy.exists():
        shutil.copytree(encoder_folder(), copy)
        values = json.loads((copy / "config.json").read_text())
        values |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        (copy / "config.json").write_text(json.dumps(values))
    return copy


def values_of(folder: Path, save_dir: str, **changes: Any) -> dict[str, Any]:
    """The settings of a run of this file, with its data."""
    if not (folder / "train.jsonl").exists():
        records = sentences(14, 1)
        for record in records[::3]:
            del record["label"]
        write_records(folder / "train.jsonl", records)
        texts = [" ".join(record["tokens"]) for record in sentences(14, 5)]
        (folder / "texts.txt").write_text("\n".join(texts) + "\n")
        pairs = [
            {"text": one, "text2": other, "score": number / 7}
            for number, (one, other) in enumerate(zip(texts[:7], texts[7:], strict=True))
        ]
        write_records(folder / "pairs.jsonl", pairs)
        soft = [
            {"text": text, "intent": {"question": number / 14}, "ner": []}
            for number, text in enumerate(dict.fromkeys(texts))
        ]
        write_records(folder / "soft.jsonl", soft)
    values = {"tasks": TASKS, "model_name": str(without_dropout(folder)), **changes}
    (folder / save_dir).mkdir()
    text = json.dumps(settings(folder, save_dir=str(folder / save_dir / "saved"), **values))
    for name in ("texts.txt", "pairs.jsonl", "soft.jsonl"):
        text = text.replace(f'"{name}"', json.dumps(str(folder / name)))
    made: dict[str, Any] = json.loads(text)
    return made


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def in_two(folder: Path, jobs: Sequence[Mapping[str, Any]]) -> list[tuple[list[Outcome], int]]:
    """Run jobs in two processes; returns each one's report on each job, and its exit status."""
    file = folder / "jobs.json"
    file.write_text(json.dumps([{**job, "port": free_port()} for job in jobs]))
    places = [folder / f"process {rank}" for rank in range(2)]
    running = []
    for rank, place in enumerate(places):
        place.mkdir()
        variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        running.append(
            forked.start(
                place, process_jobs.do_all, str(file), MASTER_ADDR="127.0.0.1", **variables
            )
        )
    statuses = [forked.status_of(process) for process in running]
    for process in running:
        process.kill()
    assert all(s in (0, -signal.SIGKILL) for s in statuses), [*map(forked.messages, places)]
    lines = [(place / "output").read_text(encoding="utf-8").splitlines() for place in places]
    return [
        ([json.loads(line) for line in its if line.startswith("{")], status or 0)
        for its, status in zip(lines, statuses, strict=True)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, list[Outcome]]:
    """Both processes' reports on each run, and on those that fail or are stopped; all at once."""
    jobs = {name: {"values": values_of(folder, f"two {name}", **RUNS[name])} for name in RUNS}
    hit = {"values": values_of(folder, "stopped", num_epochs=2), "rank": 1}
    jobs["stopped"] = {**hit, "step": 2, "signal": signal.SIGTERM}
    jobs["resumed"] = {**hit, "options": ["--resume"]}
    for method in ("gradnorm", "pcgrad", "cagrad"):
        jobs[method] = {"values": values_of(folder, method, balancing=method,
                                            schedule="together")}  # fmt: skip
    jobs["measured"] = {"values": values_of(folder, "measured", log_gradients=1,
                                            schedule="together")}  # fmt: skip
    jobs["at odds"] = {"values": values_of(folder, "at odds"), "rank": 1,
                       "changes": {"batch_size": 3}}  # fmt: skip
    jobs["occupied"] = {"values": jobs["joint"]["values"]}
    lost = {"values": values_of(folder, "lost", num_epochs=2), "rank": 1}
    jobs["lost"] = {**lost, "step": 3, "signal": signal.SIGKILL}
    first, second = in_two(folder, list(jobs.values()))
    assert second[1] == -signal.SIGKILL
    names = list(jobs)
    return {
        name: [found[0][i] for found in (first, second) if i < len(found[0])]
        for i, name in enumerate(names)
    }


def losses(save_dir: Path) -> list[tuple[str, float]]:
    return [
        (task, loss) for line in log_lines(save_dir) for task, loss in sorted(line["loss"].items())
    ]


def assert_close(found: Path, expected: Path) -> None:
    one, other = losses(found), losses(expected)
    assert [task for task, _ in one] == [task for task, _ in other]
    assert [loss for _, loss in one] == pytest.approx([loss for _, loss in other], rel=1e-4)


@pytest.mark.parametrize("name", list(RUNS))
def test_two_processes_have_the_losses_of_one(
    folder: Path, outcomes: dict[str, list[Outcome]], name: str
) -> None:
    first, second = outcomes[name]
    assert first["status"] == second["status"] == 0, first["said"] + second["said"]
    train(make_config(values_of(folder, f"one {name}", **RUNS[name])))
    assert_close(folder / f"two {name}" / "saved", folder / f"one {name}" / "saved")


def test_both_draw_the_same_tasks_and_only_the_first_reports(
    outcomes: dict[str, list[Outcome]],
) -> None:
    for name in RUNS:
        first, second = outcomes[name]
        assert first["drawn"] == second["drawn"]
        assert "Training in 2 processes" in first["said"]
        assert ("whole batches" in first["said"]) == (name == "terms and pairs")
        assert "Best model" in first["said"]
        assert second["said"] == ""


def test_a_signal_to_any_process_stops_all_after_saving_and_they_resume(
    folder: Path, outcomes: dict[str, list[Outcome]]
) -> None:
    first, second = outcomes["stopped"]
    assert first["status"] == second["status"] == 143
    assert "Stopped after step 3 of" in first["said"]
    assert "Continue with --resume" in first["said"]
    assert second["said"] == ""
    assert [one["status"] for one in outcomes["resumed"]] == [0, 0]
    train(make_config(values_of(folder, "not stopped", num_epochs=2)))
    assert_close(folder / "stopped" / "saved", folder / "not stopped" / "saved")


def test_a_killed_process_ends_the_run_with_a_message_and_one_process_can_resume(
    folder: Path, outcomes: dict[str, list[Outcome]]
) -> None:
    [first] = outcomes["lost"]
    assert first["status"] == 2
    assert "error: process 1 (process number " in first["said"]
    assert "of the run's 2 is gone or does not answer" in first["said"]
    assert "Run again with --resume, with any number of processes." in first["said"]
    assert "Traceback" not in first["said"]
    save_dir = folder / "lost" / "saved"
    assert [file.path.name for file in list_checkpoints(save_dir)] == ["mtl_step3.pt"]
    values = json.loads((folder / "jobs.json").read_text())[-1]["values"]
    train(make_config(values), resume=True)
    train(make_config(values_of(folder, "not lost", num_epochs=2)))
    assert_close(save_dir, folder / "not lost" / "saved")


def test_settings_that_need_whole_gradients_are_refused_by_name(
    outcomes: dict[str, list[Outcome]],
) -> None:
    for method in ("gradnorm", "pcgrad", "cagrad"):
        assert {one["status"] for one in outcomes[method]} == {2}
        assert f"`balancing` is {method}, and there are 2 processes" in outcomes[method][0]["said"]
        assert "static, uncertainty or dwa" in outcomes[method][0]["said"]
    assert {one["status"] for one in outcomes["measured"]} == {2}
    assert "`log_gradients` is 1, and there are 2" in outcomes["measured"][0]["said"]


def test_if_the_first_process_cannot_start_the_others_report_it_and_end(
    outcomes: dict[str, list[Outcome]],
) -> None:
    first, second = outcomes["occupied"]
    assert first["status"] == second["status"] == 2
    assert "the folder holds another run" in first["said"]
    assert "process 0 of 2 cannot continue" in second["said"]


def test_processes_with_different_settings_are_named(
    outcomes: dict[str, list[Outcome]],
) -> None:
    assert [one["status"] for one in outcomes["at odds"]] == [2, 2]
    for one in outcomes["at odds"]:
        assert "process 1 does not train what process 0 does: batch_size is 3" in one["said"]


def test_every_record_of_a_batch_is_in_exactly_one_share() -> None:
    rows = torch.arange(7).numpy()
    shares = [Processes(rank, 3).share(rows).tolist() for rank in range(3)]
    assert sorted(row for share in shares for row in share) == rows.tolist()
    assert Processes(2, 3).share(rows[:2]).tolist() == []
    assert ALONE.share(rows).tolist() == rows.tolist()


def test_each_process_has_its_own_dropout_and_the_first_that_of_a_single_process() -> None:
    assert step_seed(1, 5) == step_seed(1, 5, 0)
    assert len({step_seed(1, 5, rank) for rank in range(4)}) == 4


def test_a_single_gpu_for_several_processes_is_refused() -> None:
    assert ALONE.device("cuda:1") == "cuda:1"
    assert Processes(1, 2, 1).device("cuda") == "cuda:1"
    assert Processes(1, 2, 1).device("cpu") == "cpu"
    with pytest.raises(RequestError, match="`device` is cuda:1, and there are 2 processes"):
        Processes(0, 2).device("cuda:1")


def test_processes_share_the_cores_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyheads.training.distributed.available_cores", lambda: 7)
    assert ALONE.threads(None) is None
    assert Processes(0, 2, 0, 2).threads(None) == 3
    assert Processes(0, 9, 0, 9).threads(None) == 1
    assert Processes(0, 2, 0, 2).threads(5) == 5


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR, MASTER_PORT is not set"),
        ({"WORLD_SIZE": "2", "RANK": "x", "MASTER_ADDR": "h", "MASTER_PORT": "1"}, "RANK is 'x'"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"}, "less than"),
    ],
)
def test_missing_or_invalid_launcher_variables_are_named(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], message: str
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert is_first_process()
    with joined("cpu") as processes:
        assert processes is ALONE
    refuse_several("a comparison")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RequestError, match=message), joined("cpu"):
        pass
    with pytest.raises(RequestError, match="a comparison was started in 2 processes"):
        refuse_several("a comparison")
