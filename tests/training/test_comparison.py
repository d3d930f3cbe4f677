"""Training each task alone and all together, and the comparison of both."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import manyheads
from manyheads.cli import main
from manyheads.config import Config
from manyheads.display import comparison_sections, draw_comparison, plain
from manyheads.errors import ConfigError, DataError, ManyheadsError, ModelError, RequestError
from manyheads.evaluation import evaluate
from manyheads.inference import TextPair
from manyheads.training import Comparison, Stopped, compare, comparison, config_alone
from manyheads.training.comparison import _runs, epochs_alone, measure, training_seconds
from training_setup import Killed, Spy, config, sentences, settings, write_records

TASKS = {
    "intent": {"kind": "classification", "weight": 0.5, "max_records": 10},
    "ner": {"kind": "tagging", "batch_size": 7},
}


@dataclass
class Runs:
    """Records the runs of a comparison, and can stop one at a step."""

    at_step: Callable[[int, int], None] = lambda run, step: None
    titles: list[str] = field(default_factory=list)
    spies: list[Spy] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @contextmanager
    def reporter(self, title: str, one: Config) -> Iterator[Spy]:
        number = len(self.spies)
        self.titles.append(title)
        self.spies.append(Spy(lambda step: self.at_step(number, step)))
        yield self.spies[-1]

    def compare(self, one: Config, folder: Path, **options: Any) -> Comparison:
        return compare(
            one, out=folder, seeds=2, reporter_of=self.reporter, report=self.said.append, **options
        )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


def two_tasks(folder: Path, **changes: Any) -> Config:
    return config(folder, tasks=TASKS, seed=5, num_epochs=2, **changes)


@pytest.fixture(scope="module")
def compared(base: Path) -> tuple[Comparison, Runs]:
    runs = Runs()
    return runs.compare(two_tasks(base), base / "out"), runs


def test_each_task_alone_and_all_together_are_trained_for_each_seed(
    base: Path, compared: tuple[Comparison, Runs]
) -> None:
    comparison, runs = compared
    assert comparison.seeds == (5, 6)
    assert runs.titles == [
        f"seed {seed}: {name}"
        for seed in (5, 6)
        for name in ("intent alone", "ner alone", "all together")
    ]
    folders = sorted(path.parent.relative_to(base / "out").as_posix()
                     for path in (base / "out").glob("*/*/best"))  # fmt: skip
    assert folders == [
        f"seed-{seed}/{name}"
        for seed in (5, 6)
        for name in ("alone-intent", "alone-ner", "together")
    ]
    alone, both = runs.spies[0], runs.spies[2]
    assert alone.sentences == {"intent": 20}  # of 14, at most ten an epoch
    assert both.sentences == {"intent": 20, "ner": 28}


def test_a_verdict_is_computed_from_the_models_scores(
    base: Path, compared: tuple[Comparison, Runs]
) -> None:
    comparison, _ = compared
    assert [verdict.task for verdict in comparison.verdicts] == ["intent", "ner"]
    assert [verdict.metric for verdict in comparison.verdicts] == ["accuracy", "f1"]
    for verdict in comparison.verdicts:
        for seed, alone, together in zip((5, 6), verdict.alone, verdict.together, strict=True):
            place = base / "out" / f"seed-{seed}"
            for name, value in ((f"alone-{verdict.task}", alone), ("together", together)):
                metrics: Any = evaluate(place / name / "best").evaluation["tasks"][verdict.task]
                assert metrics[verdict.metric] == pytest.approx(value)
        assert verdict.sentences is not None
        assert verdict.sentences.sentences == 8
    assert comparison.training.together > 0
    assert set(comparison.inference.alone) == {"intent", "ner"}
    assert comparison.texts == 8


def test_the_result_is_kept_as_json(base: Path, compared: tuple[Comparison, Runs]) -> None:
    comparison, _ = compared
    stored = json.loads((base / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert stored == json.loads(json.dumps(comparison.to_json()))
    assert stored["tasks"]["ner"]["words"].startswith("joint training ")
    assert stored["chosen_on_the_same_data"] is True
    assert stored["epochs_alone"] == {"intent": 2, "ner": 2}


def reached(comparison: Comparison) -> list[Any]:
    return [(v.task, v.alone, v.together, v.sentences) for v in comparison.verdicts]


def test_a_finished_comparison_is_not_trained_again(
    base: Path, compared: tuple[Comparison, Runs]
) -> None:
    runs = Runs()
    again = runs.compare(two_tasks(base), base / "out")
    assert not any(spy.losses for spy in runs.spies)
    assert reached(again) == reached(compared[0])
    assert again.training == compared[0].training


def test_a_stopped_comparison_resumes(base: Path, compared: tuple[Comparison, Runs]) -> None:
    def kill(run: int, step: int) -> None:
        if (run, step) == (2, 6):
            raise Killed

    with pytest.raises(Killed):
        Runs(kill).compare(two_tasks(base), base / "stopped")

    def stop(run: int, step: int) -> None:
        if (run, step) == (3, 2):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped, match=r"Stopped in .*seed-6/alone-intent.* same command") as caught:
        Runs(stop).compare(two_tasks(base), base / "stopped")
    assert caught.value.exit_status == 143
    runs = Runs()
    comparison = runs.compare(two_tasks(base), base / "stopped")
    assert [bool(spy.losses) for spy in runs.spies] == [False, False, False, True, True, True]
    assert runs.spies[3].said("Resumed after step 2")
    assert reached(comparison) == reached(compared[0])


def test_a_folder_with_another_comparison_is_refused(
    base: Path, compared: tuple[Comparison, Runs]
) -> None:
    with pytest.raises(RequestError, match=r"learning_rate is 0\.5 and was .*Use another folder"):
        Runs().compare(two_tasks(base, learning_rate=0.5), base / "out")


def test_a_missing_log_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"metrics.jsonl: the log of the run cannot be read"):
        training_seconds(tmp_path)


def test_models_are_scored_on_test_files_if_there_are_any(
    base: Path, compared: tuple[Comparison, Runs]
) -> None:
    one = write_records(base / "test.jsonl", sentences(20, 9))
    tags = write_records(base / "tags.jsonl", sentences(11, 8, fields=["ner"]))
    runs = Runs()
    same = runs.compare(two_tasks(base), base / "out", test_files=one)
    assert same.data == (str(one),)
    assert same.tested
    assert {v.sentences.sentences for v in same.verdicts if v.sentences} == {20}
    files = {"intent": one, "ner": tags}
    each = runs.compare(two_tasks(base), base / "out", test_files=files)
    assert each.data == (str(one), str(tags))
    assert [v.sentences.sentences for v in each.verdicts if v.sentences] == [20, 11]
    assert each.texts == 31


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"intent": "a", "nre": "b"}, r"test file is given for 'nre'.*did you mean \"ner\""),
        ({"intent": "a"}, "there is no test file for ner"),
    ],
)
def test_test_files_must_be_for_the_tasks(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        compare(two_tasks(tmp_path), test_files=files, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.jsonl", "there is no such file"),
        ("empty.jsonl", "empty.jsonl: the file is empty"),
        ("tags.jsonl", "tags.jsonl: no record has a label for task 'intent'; expected labels in"),
        ("broken.jsonl", "broken.jsonl:5: `ner` has 7 tags for 8 tokens"),
    ],
)
def test_a_test_file_that_cannot_be_used_is_refused_before_anything_is_trained(
    tmp_path: Path, name: str, message: str
) -> None:
    broken = sentences(5, 8)
    broken[-1]["ner"].pop()
    write_records(tmp_path / "empty.jsonl", [])
    write_records(tmp_path / "tags.jsonl", sentences(5, 8, fields=["ner"]))
    write_records(tmp_path / "broken.jsonl", broken)
    with pytest.raises(DataError, match=message):
        compare(two_tasks(tmp_path), test_files=str(tmp_path / name), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pairs_are_timed_with_both_texts_and_files_read_as_the_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: dict[str, Any] = {
        "same": {"kind": "pair", "field": "same"}, "topic": {"kind": "classification"},
    }  # fmt: skip
    for task in tasks:
        for part, seed in (("train", 1), ("valid", 2), ("test", 3)):
            records = [
                {"sentence": " ".join(one["tokens"]), "label": one["label"]}
                if task == "topic"
                else {
                    "sentence": " ".join(one["tokens"]), "text2": "where is anna ?",
                    "same": ["yes", "no"][i % 2],
                }
                for i, one in enumerate(sentences(12, seed))
            ]  # fmt: skip
            path = write_records(tmp_path / f"{task}.{part}.jsonl", records)
            if part != "test":
                tasks[task][f"{part}_file"] = str(path)
    given = config(
        tmp_path, num_epochs=1, text_field="sentence", tasks=tasks, train_file=None, valid_file=None
    )
    tests = {task: str(tmp_path / f"{task}.test.jsonl") for task in tasks}
    timed: dict[str, Any] = {}

    def measured(models: Any, texts: Any) -> dict[str, float]:
        timed.update(texts)
        return dict.fromkeys(models, 1.0)

    monkeypatch.setattr(comparison, "measure", measured)
    found = compare(given, seeds=1, test_files=tests, out=tmp_path / "out")
    assert found.data == tuple(tests.values())
    for name in ("same", "together"):
        assert [isinstance(text, TextPair) for text in timed[name]] == [True] * 12 + [False] * 12
    assert all(isinstance(text, str) for text in timed["topic"])


def test_one_task_cannot_be_compared(tmp_path: Path) -> None:
    one = config(tmp_path, tasks={"ner": {"kind": "tagging"}})
    with pytest.raises(RequestError, match="the configuration has one task, ner; expected at leas"):
        compare(one, out=tmp_path / "out")
    with pytest.raises(RequestError, match="`init_from` is saved, whose heads have already been"):
        compare(config(tmp_path, init_from="saved"), out=tmp_path / "out")
    with pytest.raises(RequestError, match="0 seeds; expected at least 1"):
        compare(two_tasks(tmp_path), seeds=0, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_task_alone_keeps_all_settings_but_those_of_several_tasks(tmp_path: Path) -> None:
    tasks = {
        "intent": {"kind": "classification", "ratio": 2.0, "weight": 3.0, "dropout": 0.4},
        "ner": {"kind": "tagging", "decoder": "crf"},
    }
    both = config(
        tmp_path, tasks=tasks, schedule="ratios", best_metric="ner.precision",
        keep_best_per_task=True, learning_rate=0.25,
    )  # fmt: skip
    intent, ner = (config_alone(both, task, 7) for task in tasks)
    assert (intent.schedule, intent.best_metric, ner.best_metric) == (
        "alternate", "mean", "ner.precision",
    )  # fmt: skip
    assert intent.num_epochs == 7
    assert intent.learning_rate == 0.25
    assert not intent.keep_best_per_task
    own = intent.tasks["intent"]
    assert (own.ratio, own.weight, own.dropout) == (None, 1.0, 0.4)
    assert ner.tasks["ner"].decoder == "crf"


def test_the_tasks_of_the_flat_keys_can_be_trained_alone(tmp_path: Path) -> None:
    both = config(tmp_path, num_classes=2, num_ner_labels=5)
    assert config_alone(both, "ner", 1).tasks["ner"].num_labels == 5


def test_a_task_alone_has_as_many_passes_as_with_the_others(tmp_path: Path) -> None:
    large = write_records(tmp_path / "large.jsonl", sentences(64, 3))
    tasks = {
        "intent": {"kind": "classification", "train_file": str(large)},
        "ner": {"kind": "tagging"},
    }
    both = config(tmp_path, tasks=tasks, num_epochs=6, schedule="temperature", schedule_alpha=0.0)
    # Of 16 and 4 steps per epoch, each task has ten.
    assert epochs_alone(both) == {"intent": 4, "ner": 15}
    runs = _runs(both, epochs_alone(both), tmp_path, 8)
    assert {name: (run.num_epochs, run.seed) for name, run in runs.items()} == {
        "intent": (4, 8), "ner": (15, 8), "together": (6, 8)
    }  # fmt: skip
    assert epochs_alone(config(tmp_path, tasks=tasks, num_epochs=6)) == {"intent": 6, "ner": 6}


def test_models_are_timed_in_turn_and_after_a_round_to_warm_up() -> None:
    calls: list[str] = []

    class Timed:
        def __init__(self, name: str) -> None:
            self._name = name

        def predict(self, texts: Sequence[str]) -> None:
            calls.append(self._name)

    models: Any = {name: Timed(name) for name in ("a", "b")}
    times = measure(models, {"a": ["x"], "b": ["y"]}, 3)
    assert calls == ["a", "b"] * 4
    assert set(times) == {"a", "b"}


# ------------------------------------------------------------------------------- what is shown


def test_a_comparison_is_displayed_as_tables_and_in_words(
    compared: tuple[Comparison, Runs],
) -> None:
    text = plain(comparison_sections(compared[0]))
    for verdict in compared[0].verdicts:
        row = next(line for line in text.splitlines() if line.startswith(f"{verdict.task} "))
        assert row.split()[1] == verdict.metric
        assert f"{verdict.seeds.mean:+.4f}" in row
        assert row.split()[-1] == verdict.outcome
    assert "means of 2 seeds, scored on" in text
    assert "which also chose the best epochs" in text
    assert "training: epochs alone: intent 2, ner 2; inference: 8 texts" in text
    assert "\nJoint training " in text


def test_a_comparison_describes_itself(compared: tuple[Comparison, Runs]) -> None:
    assert repr(compared[0]).startswith("Comparison(2 seeds)\n  ")
    assert repr(replace(compared[0], seeds=(1,))).startswith("Comparison(1 seed)\n  ")


def test_a_comparison_is_plotted(tmp_path: Path, compared: tuple[Comparison, Runs]) -> None:
    draw_comparison(compared[0], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_picture_is_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(settings(tmp_path, tasks=TASKS)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["compare", str(path), "--picture", "p.png"]) == 2
    assert 'pip install -e ".[plots]"' in capsys.readouterr().err
    assert not (tmp_path / "comparison").exists()


def test_the_command_prints_only_json_on_request(
    base: Path, compared: tuple[Comparison, Runs], capsys: pytest.CaptureFixture[str]
) -> None:
    path = base / "c.yaml"
    values = settings(base, tasks=TASKS, seed=5, num_epochs=2)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    command = ["compare", str(path), "--seeds", "2", "--out", str(base / "out")]
    assert main([*command, "--json", "-"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["tasks"].keys() == {"intent", "ner"}
    assert "seed 5: intent alone" in output.err
    one = write_records(base / "test.jsonl", sentences(20, 9))
    files = ["--test-file", f"intent={one}", "--test-file", f"ner={one}"]
    assert main([*command, *files, "--picture", str(base / "p.png")]) == 0
    assert "Training together instead of alone" in capsys.readouterr().out
    assert (base / "p.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--test-file", "a", "--test-file", "ner=b"], "expected one FILE for all tasks, or one"),
        (["--test-file", "ner=a", "--test-file", "ner=b"], "expected one FILE for all tasks, or"),
        (["--set", "tasks.ner.knid=x"], "unknown key"),
        (["--set", "num_epochs=auto"], "each run would have another number of epochs"),
        (["--set", "valid_file="], "each run would hold out other records"),
        (["--seeds", "0"], "--seeds"),
    ],
)
def test_configurations_that_cannot_be_compared_are_refused_with_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(settings(tmp_path, tasks=TASKS)), encoding="utf-8")
    assert main(["compare", str(path), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_python_users_compare_with_a_mapping(base: Path, compared: tuple[Comparison, Runs]) -> None:
    values = settings(base, tasks=TASKS, seed=5, num_epochs=2)
    comparison = manyheads.compare(values, seeds=2, out=base / "out")
    assert reached(comparison) == reached(compared[0])
    with pytest.raises(ManyheadsError, match="expected a list of dicts"):
        manyheads.compare(3)  # type: ignore[arg-type]


def test_a_comparison_that_was_begun_with_a_setting_that_is_refused_since_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = settings(tmp_path, tasks=TASKS, hold_out=0.2)
    path, out = tmp_path / "config.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(values))
    command = ["compare", str(path), "--out", str(out), "--seeds", "1", "--json", "-"]
    with pytest.raises(ConfigError, match="nothing is held out"):
        manyheads.compare(path, out=out, seeds=1, progress=False)
    with monkeypatch.context() as patched:
        patched.setattr("manyheads.config.checks.NEW_RUN_CHECKS", ())
        manyheads.compare(path, out=out, seeds=1, progress=False)
    manyheads.compare(path, out=out, seeds=1, progress=False)
    assert main(command) == 0
    assert main([*command[:3], str(tmp_path / "new"), *command[4:]]) == 2
