"""The configuration: flat keys, overrides, and refused values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyheads.config import (
    ALIASES,
    Config,
    TaskConfig,
    colliding_tasks,
    load_config,
    make_config,
    stored_config,
)
from manyheads.errors import ConfigError
from manyheads.tasks import ClassResult, MultilabelResult, Prediction

FLAT = """
model_name: distilbert-base-uncased
max_length: 128
batch_size: 16
learning_rate: 2e-5
num_epochs: 3
num_classes: 2
num_ner_labels: 5
train_file: data/train.json
valid_file: data/valid.json
save_dir: saved_model
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str) -> Path:
        path = tmp_path / "c.yaml"
        path.write_text(content, encoding="utf-8")
        return path

    return write


def test_the_flat_keys_alone_are_a_complete_configuration(write: Write, tmp_path: Path) -> None:
    config = load_config(write(FLAT))
    assert config.learning_rate == 2e-5
    assert {name: (t.kind, t.num_labels) for name, t in config.tasks.items()} == {
        "classification": ("classification", 2),
        "ner": ("tagging", 5),
    }
    both = ("classification", "ner")
    assert config.train_files() == {str(tmp_path / "data/train.json"): both}
    assert config.valid_files() == {str(tmp_path / "data/valid.json"): both}


def test_input_paths_are_relative_to_the_file_and_output_paths_to_the_working_directory(
    write: Write, tmp_path: Path
) -> None:
    config = load_config(
        write(
            "train_file: a.json\nvalid_file: /b.json\nsave_dir: out\nmodel_name: ./encoder\n"
            "tasks: {x: {kind: tagging, train_file: ../c.json, valid_file: 'datasets:wnut_17'}}"
        )
    )
    assert config.train_file == str(tmp_path / "a.json")
    assert config.valid_file == "/b.json"
    assert config.save_dir == "out"
    assert config.model_name == str(tmp_path / "encoder")
    assert config.tasks["x"].train_file == str(tmp_path.parent / "c.json")
    assert config.tasks["x"].valid_file == "datasets:wnut_17"


def test_paths_among_the_overrides_are_relative_to_the_working_directory(write: Write) -> None:
    config = load_config(write(FLAT), {"train_file": "mine.json", "tasks.ner.valid_file": "v.json"})
    assert config.train_file == "mine.json"
    assert config.tasks["ner"].valid_file == "v.json"


def test_paths_may_be_path_objects() -> None:
    config = load_config(None, {"save_dir": Path("run"), "files": (Path("b.jsonl"),)})
    assert (config.save_dir, config.files) == ("run", ("b.jsonl",))
    tasks = {"ner": {"kind": "tagging", "valid_file": Path("a.jsonl")}}
    ner = load_config(None, {"tasks.ner.train_file": Path("1e3"), "tasks": tasks}).tasks["ner"]
    assert (ner.train_file, ner.valid_file) == ("1e3", "a.jsonl")


def test_the_home_of_an_unknown_user_is_an_ordinary_name(write: Write) -> None:
    config = load_config(write("train_file: ~nobody-of-this-name/a.json"))
    assert str(config.train_file).endswith("~nobody-of-this-name/a.json")


PAIR_OF_NUMBERS = (
    r"`tasks\.a\.score_range` is \[.*\]; expected a list of two numbers, the lower one first$"
)


@pytest.mark.parametrize(("alias", "field"), ALIASES.items())
def test_an_alias_is_the_field_in_files_and_overrides(write: Write, alias: str, field: str) -> None:
    assert getattr(
        load_config(write(f"{alias}: 7" if alias != "checkpoint_dir" else ""), {alias: "7"}), field
    ) in (7, "7")


def test_hyphens_and_underscores_in_names_are_equivalent(write: Write) -> None:
    assert load_config(write("batch-size: 3")).batch_size == 3
    assert load_config(write(""), {"batch-size": "3"}).batch_size == 3
    config = load_config(
        None,
        {"tasks": {"my-ner": {"kind": "tagging", "neck": "bilstm"}}, "tasks.my-ner.neck-size": "7"},
    )
    assert config.tasks["my-ner"].neck_size == 7


def test_an_override_replaces_the_value_in_the_file(write: Write) -> None:
    config = load_config(write(FLAT), {"lr": "3e-5", "num_epochs": 5, "max_length": "64"})
    assert (config.learning_rate, config.num_epochs, config.max_length) == (3e-5, 5, 64)


def test_a_dotted_override_changes_one_task_and_keeps_the_others(write: Write) -> None:
    config = load_config(write(FLAT), {"tasks.ner.decoder": "crf", "tasks.ner.weight": "2"})
    assert config.tasks["ner"] == TaskConfig(
        kind="tagging", num_labels=5, decoder="crf", weight=2.0
    )
    assert config.tasks["classification"].num_labels == 2


def test_a_dotted_override_applies_to_the_number_of_labels_given_beside_it(write: Write) -> None:
    config = load_config(write(FLAT), {"tasks.ner.decoder": "crf", "num_ner_labels": "9"})
    assert config.tasks["ner"].num_labels == 9


def test_the_value_of_a_text_field_stays_text() -> None:
    config = load_config(None, {"save_dir": "2024", "train_file": "yes", "valid_file": "null"})
    assert (config.save_dir, config.train_file, config.valid_file) == ("2024", "yes", None)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("label_separator", "~", "~"),
        ("tasks.ner.field", "~", "~"),
        ("text_field", "~", "~"),
        ("label_separator", "null", None),
        ("text_field", "", None),
        ("valid_file", "~", None),
        ("checkpoint_every", "~", None),
        ("schedule_alpha", "~", None),
    ],
)
def test_a_tilde_is_null_where_it_cannot_be_a_value(
    key: str, value: str, expected: str | None
) -> None:
    found: Any = load_config(None, {key: value})
    for part in key.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == expected


@pytest.mark.parametrize("key", ["map", "tasks.classification.map"])
def test_a_field_is_renamed_once(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"`{key}`: the field 'a' is repeated; keep one"):
        load_config(None, {key: "a=label,b=text2,a=text"})
    assert load_config(None, {"map": "a=label,b=text"}).map == {"a": "label", "b": "text"}


def test_lists_and_mappings_are_read_as_yaml() -> None:
    config = load_config(None, {"tasks.ner.labels": "[PER, LOC]"})
    assert config.tasks["ner"].labels == ("PER", "LOC")
    config = load_config(None, {"tasks": "{topic: {kind: multilabel}}"})
    assert list(config.tasks) == ["topic"]


def test_the_arguments_are_not_changed(write: Write) -> None:
    tasks = {"ner": {"kind": "tagging"}}
    load_config(None, {"tasks": tasks, "tasks.ner.decoder": "crf"})
    assert tasks == {"ner": {"kind": "tagging"}}


@pytest.mark.parametrize(
    ("value", "expected"), [("200", 200), (200, 200), ("5m", "5m"), ("30s", "30s"), ("null", None)]
)
def test_checkpoints_are_saved_every_so_many_steps_or_at_an_interval(
    value: object, expected: object
) -> None:
    assert load_config(None, {"checkpoint_every": value}).checkpoint_every == expected


@pytest.mark.parametrize("value", ["cpu", "cuda", "cuda:3", "mps", "auto"])
def test_a_device_is_one_that_torch_knows(value: str) -> None:
    assert load_config(None, {"device": value}).device == value


def test_every_field_is_documented() -> None:
    for model in (Config, TaskConfig):
        for name, info in model.model_fields.items():
            assert info.description, name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "seed: 1\nlearnin_rate: 3",
            r'c\.yaml:2: unknown key `learnin_rate` \(did you mean "learning_rate"\?\) with the '
            r"value 3; expected one of: train_file, .*lr, epochs, checkpoint_dir$",
        ),
        (
            "tasks:\n  ner:\n    kind: tagging\n    decodr: crf",
            r'c\.yaml:4: unknown key `tasks\.ner\.decodr` \(did you mean "decoder"\?\)',
        ),
        ("seed: x\nbatch_size: 0\nsed: 1", r"^\S+:3: unknown key `sed` .* Also: .*:2: .*; .*:1: "),
        ("batch_size: 0", r"c\.yaml:1: `batch_size` is 0; expected a whole number at least 1"),
        ("batch_size: true", "`batch_size` is True; expected a whole number"),
        ("learning_rate: .inf", "`learning_rate` is inf; expected a number at least 0"),
        ("learning_rate: -1", r"`learning_rate` is -1; expected a number at least 0"),
        ("num_classes: 2.5", "`num_classes` is 2.5; expected a whole number at least 2"),
        ("early_stopping: 0", "`early_stopping` is 0; expected a whole number at least 1"),
        ("save_dir: 2024", r"`save_dir` is 2024; expected a text\. Put it in quotes\."),
        ("device: cud", "`device` is 'cud'; expected auto, cpu, cuda, cuda:N or mps"),
        (
            "checkpoint_every: 5x",
            "`checkpoint_every` is '5x'; expected a number of optimiser steps",
        ),
        ("checkpoint_every: ²", "`checkpoint_every` is '²'; expected a number of optimiser steps"),
        (
            "valid_file: v.jsonl\nhold_out: 0.2",
            "`hold_out` is 0.2, but `valid_file` is set, so nothing is held out; leave one of",
        ),
        ("valid_file: v.jsonl\nhold_out_seed: 3", "`hold_out_seed` is 3, but `valid_file` is set"),
        (
            "keep_best_per_task: true\ntasks: {a: {kind: tagging}}",
            "`keep_best_per_task` is true, but there is one task, a, whose best model is the run's",
        ),
        (
            "keep_embeddings: {batch_size: 3}",
            "`keep_embeddings.batch_size` is 3 unlabelled sentences, but there are none; set",
        ),
        (
            "teacher: {sources: [m], batch_size: 3}",
            "`teacher.batch_size` is 3 unlabelled sentences, but there are none; set `teacher.tex",
        ),
        ("schedule_alpha: 0.5", "`schedule_alpha` is 0.5, but `schedule` is 'alternate'"),
        ("schedule: temperature\nschedule_alpha: 2", "`schedule_alpha` is 2; expected a number at"),
        ("schedule: ratios", "no task has a `ratio`"),
        ("tasks: {a: {kind: tagging, ratio: 2}}", "`tasks.a.ratio` is 2, but `schedule` is 'alter"),
        (
            "schedule: joint\ntasks: {a: {kind: tagging, batch_size: 2}}",
            "`tasks.a.batch_size` is 2,",
        ),
        (
            "schedule: joint\ntasks: {a: {kind: tagging, max_records: 2}}",
            "`tasks.a.max_records` is",
        ),
        ("best_weights: {ner: 1}", "`best_weights` is set, but `best_metric` is 'mean'"),
        ("best_metric: weighted\nbest_weights: {nre: 1}", r'no such task \(did you mean "ner"\?\)'),
        ("best_metric: weighted\nbest_weights: {ner: 0}", "no task has a weight above 0"),
        (
            "best_metric: weighted\nbest_weights: {ner: -1}",
            "`best_weights.ner` is -1; expected a number at least 0",
        ),
        ("best_metric: weighted\nbest_weights: 3", "a mapping from a task's name to a number"),
        ("keep_best_per_task: maybe", "`keep_best_per_task` is 'maybe'; expected true or false"),
        ("lr_schedule: linar", "`lr_schedule` is 'linar'; expected one of: linear, cosine, const"),
        ("lr: 1\nlearning_rate: 2", r"c\.yaml:2: `learning_rate` sets learning_rate a second time"),
        ("map: {a: 1}", r"`map\.a` is 1; expected a name\. Put it in quotes\."),
        ("map: {a: [b]}", r"`map\.a` is \['b'\]; expected a name$"),
        ("tasks: [ner]", r"`tasks` is \['ner'\]; expected a mapping from a task's name to its"),
        ("tasks: {ner: 1}", r"`tasks\.ner` is 1; expected a mapping"),
        ("tasks: {ner: {decoder: crf}}", r"`tasks\.ner\.kind` is missing; expected one of: class"),
        ("tasks: {ner: {kind: x}}", r"`tasks\.ner\.kind` is 'x'; expected one of: classification"),
        ("tasks: {a b: {kind: tagging}}", "the task name 'a b' must begin with a letter"),
        (
            "tasks: {text: {kind: tagging}}",
            "the task name 'text' is reserved, as are embedding, embedding2, empty, error",
        ),
        (
            "tasks: {a: {kind: tagging}, a_score: {kind: tagging}}",
            "the tasks 'a' and 'a_score' would share the column `a_score` of a table of",
        ),
        (
            "tasks: {b_scores: {kind: tagging}, b: {kind: tagging}}",
            "the tasks 'b' and 'b_scores' would share the column `b_scores`",
        ),
        ("tasks: {a: {kind: classification, decoder: crf}}", "`decoder` is for tagging tasks only"),
        (
            "tasks: {a: {kind: tagging, pooling: [max]}}",
            "`pooling` is for classification and multi",
        ),
        (
            "tasks: {a: {kind: tagging, neck_size: 3}}",
            "`neck_size` needs a `neck`",
        ),
        ("tasks: {a: {kind: tagging, labels: PER}}", r"labels` is 'PER'; expected a list of names"),
        ("tasks: {a: {kind: tagging, labels: []}}", r"labels` is \[\]; expected a list of names"),
        ("files: a.jsonl", r"`files` is '\S.*; expected a list of paths$"),
        ("tasks: {a: {kind: similarity, score_range: [0, 5, 7]}}", PAIR_OF_NUMBERS),
        ("tasks: {a: {kind: similarity, score_range: [5]}}", PAIR_OF_NUMBERS),
        ("tasks: {a: {kind: similarity, score_range: []}}", PAIR_OF_NUMBERS),
        ("tasks: {a: {kind: similarity, score_range: [a, 5]}}", r"`.*\.0` is 'a'; expected a numb"),
        ("tasks: {a: {kind: tagging, labels: [x, x]}}", "`labels` has 'x' twice"),
        ("tasks: {a: {kind: tagging, labels: [x, ' ']}}", "`labels` has ' ' as an entry"),
        ("tasks: {a: {kind: tagging, labels: [1]}}", r"labels\.0` is 1; expected a name\. Put it"),
        (
            "tasks: {a: {kind: classification, labels: [x, y, z], num_labels: 2}}",
            "there are 3 `labels`, but `num_labels` is 2",
        ),
        ("tasks: {a: {kind: tagging}}\nnum_classes: 3", "are for configurations without `tasks`"),
        (
            "tokens_per_batch: 512\ntasks: {a: {kind: tagging, batch_size: 4}}",
            "`tokens_per_batch` is 512 and `tasks.a.batch_size` is 4: .*leave one of them out",
        ),
        (
            "tokens_per_batch: 512\ntasks: {a: {kind: tagging, max_records: 4}}",
            "`tokens_per_batch` cannot be combined with `tasks.a.max_records`, which is 4",
        ),
        (
            "tokens_per_batch: 512\nschedule: together",
            "`tokens_per_batch` cannot be combined with `schedule: together`.*use `batch_size`",
        ),
        ("freeze: layers", "`freeze` is 'layers'; expected one of: none, embeddings, layers:K"),
        ("freeze: layers:0", "`freeze` is 'layers:0'; expected one of: none, embeddings, layers:K"),
        (
            "freeze: encoder\nkeep_embeddings: 2",
            "`keep_embeddings` is set, but with `freeze: encoder` the embedding does not change",
        ),
        (
            "freeze: encoder\ntasks: {a: {kind: tagging}, b: {kind: similarity}}",
            "`tasks.b` trains the sentence embedding, which `freeze: encoder` does not let",
        ),
        (
            "unfreeze_every: 2",
            "`unfreeze_every` is 2, but nothing is frozen; set `freeze: encoder`",
        ),
        (
            "freeze: encoder\nunfreeze_every: 2m",
            r"`unfreeze_every` is '2m'; expected a number of optimiser steps \(200\) or of epochs",
        ),
        ("layer_decay: 1.5", "`layer_decay` is 1.5; expected a number above 0 and at most 1"),
        ("layer_decay: 0.9\nfreeze: encoder", "`layer_decay` is 0.9, but with `freeze: encoder`"),
        ("best_metric: nr", r"`best_metric` is 'nr', but there is no task 'nr' \(did you mean "),
        ("best_metric: mean.f1", "'mean' has no metric 'f1'; it has none"),
        (
            "best_metric: ner.acuracy",
            r"'ner' has no metric 'acuracy' \(did you mean \"token_accuracy\"\?\); it has",
        ),
    ],
)
def test_a_mistake_is_reported_with_its_line_its_value_and_the_allowed_values(
    write: Write, content: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(content))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lr": "fast"}, "^`learning_rate` is 'fast'; expected a number at least 0$"),
        ({"num-epoch": "3"}, r'^unknown key `num_epoch` \(did you mean "num_epochs"\?\)'),
        ({"tasks.ner.decodr": "crf"}, r'^unknown key `tasks\.ner\.decodr` \(did you mean "deco'),
        ({"tasks.nr.decoder": "crf"}, r"`tasks\.nr\.decoder`: there is no task 'nr'"),
        ({"tasks": "x"}, r"^`tasks` is 'x'; expected a mapping\. Set one field of one task"),
        ({"seed.x": "3"}, r"^there is no key `seed\.x`; expected the name of a field, or tasks"),
        ({"tasks.ner.labels.0": "x"}, r"^there is no key `tasks\.ner\.labels\.0`"),
        ({"": "x"}, "^unknown key ``"),
    ],
)
def test_a_mistake_in_an_override_is_not_blamed_on_the_file(
    write: Write, overrides: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(FLAT), overrides)


@pytest.mark.parametrize("tasks", ["3", "abc", "[a]", "{a: 3}"])
@pytest.mark.parametrize("override", [{"tasks.a.kind": "tagging"}, {"tasks.a.weight": "2"}])
def test_tasks_that_are_no_mapping_are_refused_beside_an_override_of_one(
    write: Write, tasks: str, override: dict[str, str]
) -> None:
    path = write(f"train_file: a.jsonl\ntasks: {tasks}\n")
    with pytest.raises(ConfigError, match=r"c\.yaml:2: `tasks(\.a)?` is .*; expected a mapping"):
        load_config(path, override)


def test_a_task_and_its_fields_are_set_in_any_order() -> None:
    task = ("tasks.topic", {"kind": "classification"})
    field = ("tasks.topic.weight", "2")
    for keys in ([task, field], [field, task]):
        assert load_config(None, dict(keys)).tasks["topic"].weight == 2
    given = {"tasks": {"topic": TaskConfig(kind="classification")}}
    assert load_config(None, {**given, "tasks.topic.weight": 2}).tasks["topic"].weight == 2


def test_the_error_for_a_task_without_a_file_names_the_settings() -> None:
    config = make_config({"tasks": {"a": {"kind": "tagging"}}, "valid_file": "v.json"})
    assert config.valid_files() == {"v.json": ("a",)}
    with pytest.raises(
        ConfigError,
        match=r"task 'a' has no train file\. Set `train_file` or `tasks\.a\.train_file`",
    ):
        config.train_files()
    config = make_config({"tasks": {"a": {"kind": "tagging"}}, "train_file": "t.json"})
    assert config.unvalidated_tasks == ("a",)
    with pytest.raises(ConfigError, match=r"task 'a' has no valid file\. Set `valid_file`"):
        config.valid_files()


def test_tasks_of_different_files_are_grouped_by_file() -> None:
    task = {"kind": "tagging"}
    config = make_config(
        {
            "tasks": {"a": task, "b": {**task, "train_file": "b.json"}, "c": task},
            "train_file": "x.json",
        }
    )
    assert config.train_files() == {"x.json": ("a", "c"), "b.json": ("b",)}


FIELDS = [*Config.model_fields, *TaskConfig.model_fields, *ALIASES]
DOTTED = ["tasks.ner", "tasks.ner.kind", "tasks.ner.labels", "tasks.a.hidden", "tasks..", "."]
KEYS = st.sampled_from(FIELDS + DOTTED)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["tagging", "crf", "mix", "1e-3", "~x/y", "9" * 5000, "mean.", "cuda:"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(KEYS, st.text(max_size=4)), inner, max_size=3),
    ),
    max_leaves=6,
)


PATHS = (
    "train_file", "valid_file", "save_dir", "model_name", "init_from", "teacher.sources",
    "teacher.texts", "keep_embeddings.texts", "tasks.ner.train_file",
)  # fmt: skip


@pytest.mark.parametrize("key", PATHS)
def test_a_path_has_no_nul_character(write: Write, key: str) -> None:
    message = rf"`{key}` is .*a\\x00b.*; expected a path without a NUL character. Check the path."
    with pytest.raises(ConfigError, match=message):
        load_config(None, {key: "~a\0b"})
    if "." not in key:
        with pytest.raises(ConfigError, match=r"c\.yaml:1: " + message):
            load_config(write(f'{key}: "~a\\0b"'))
    with pytest.raises(ConfigError, match=r"`files` is \['x', 'a\\x00b'\]; expected a path"):
        load_config(None, {"files": ["x", "a\0b"]})


def test_other_texts_may_have_a_nul_character() -> None:
    assert load_config(None, {"label_separator": "\0"}).label_separator == "\0"


def test_no_task_has_the_name_of_a_field_of_results() -> None:
    vector = np.ones(2, np.float32)
    several = Prediction("a", {}, vector, 2, "b", vector, 0.5)
    for name in {**several.to_json(), **Prediction("a", {}, windows=0).to_json()}:
        with pytest.raises(ConfigError, match=f"the task name '{name}' is reserved"):
            make_config({"tasks": {name: {"kind": "pair"}}})


@pytest.mark.parametrize("name", ["error", "neighbours"])
def test_no_task_has_the_name_of_a_field_of_the_servers_answers(name: str) -> None:
    with pytest.raises(ConfigError, match=f"the task name '{name}' is reserved"):
        make_config({"tasks": {name: {"kind": "classification"}}})


def test_no_task_has_the_name_of_another_ones_column() -> None:
    label = ClassResult("x", 0, 0.5)
    for ending in {**label.cells(), **MultilabelResult((label,)).cells()}:
        assert bool(colliding_tasks(["a", f"a{ending}"])) == bool(ending)
    assert colliding_tasks(["a", "b_score", "a_sc", "_score"]) == ""


def test_a_trained_model_keeps_names_that_were_allowed_before() -> None:
    names = ("in_scope", "text2", "error", "neighbours", "a", "a_score")
    stored = {"tasks": {name: {"kind": "classification"} for name in names}}
    assert tuple(stored_config(stored).tasks) == names
    for name in ("embedding", "../a"):
        with pytest.raises(ConfigError, match="the task name"):
            stored_config({"tasks": {name: {"kind": "classification"}}})


def message_of(build: Callable[[], Config]) -> str:
    try:
        assert isinstance(build(), Config)
    except ConfigError as error:
        return str(error)
    return ""


@settings(max_examples=400)
@given(st.dictionaries(st.one_of(KEYS, st.text(max_size=6)), VALUES, max_size=4))
def test_any_values_make_a_configuration_or_a_configuration_error(values: dict[str, Any]) -> None:
    assert len(message_of(lambda: load_config(None, values))) < 5000
    assert len(message_of(lambda: make_config(values))) < 5000


LINES = st.builds("{}: {}".format, KEYS, st.one_of(VALUES.map(repr), st.text(max_size=10)))


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(LINES, max_size=4).map("\n".join))
def test_any_file_is_a_configuration_or_a_configuration_error(write: Write, text: str) -> None:
    path = write(text.encode("utf-8", "replace").decode())
    assert len(message_of(lambda: load_config(path))) < 5000


def test_a_run_may_have_settings_that_nothing_reads(tmp_path: Path) -> None:
    values = {
        "valid_file": "v.jsonl", "hold_out": 0.2, "keep_embeddings": {"batch_size": 3},
        "keep_best_per_task": True, "tasks": {"a": {"kind": "tagging"}},
    }  # fmt: skip
    assert stored_config(values).hold_out == 0.2
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert load_config(path, {"num_epochs": 3}, stored=True).keep_best_per_task
    with pytest.raises(ConfigError, match="so nothing is held out"):
        load_config(path)


def test_keys_that_only_trained_models_set_are_not_offered() -> None:
    with pytest.raises(ConfigError, match=r"unknown key `tasks\.a\.carrid`") as caught:
        make_config({"tasks": {"a": {"kind": "tagging", "carrid": True}}})
    assert "carried" not in str(caught.value)


def test_a_field_of_a_task_that_there_is_not_names_the_nearest_task(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("tasks: {classification: {kind: classification}}", encoding="utf-8")
    message = (
        r"^`tasks\.clasification\.weight`: there is no task 'clasification' \(did you mean "
        r'"classification"\?\); expected one of: classification\. For a new task, set '
        r"`tasks\.clasification\.kind` too\.$"
    )
    with pytest.raises(ConfigError, match=message):
        load_config(path, {"tasks.clasification.weight": "2"})
    with pytest.raises(ConfigError, match="expected one of: classification, ner"):
        load_config(None, {"tasks.tags.decoder": "crf"})
    new = {"tasks.topic.weight": "2", "tasks.topic.kind": "classification"}
    assert load_config(path, new).tasks["topic"].weight == 2


@pytest.mark.parametrize(
    ("key", "expected"), [("save_dir", "a path in UTF-8"), ("label_separator", "a text in UTF-8")]
)
def test_a_value_that_is_not_utf_8_is_refused_as_such(key: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"`{key}` is 'run\\udce9'; expected {expected}$"):
        load_config(None, {key: "run\udce9"})
