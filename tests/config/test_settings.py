"""The role of each setting in resuming, warm starts, comparison, several processes and paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import pytest

from manyheads.config import (
    NESTED,
    SECTIONS,
    Balancing,
    Config,
    KeepEmbeddings,
    Setting,
    Strict,
    TaskConfig,
    Teacher,
    fields_where,
    setting_at,
    setting_of,
)
from manyheads.config.checks import CHECKS
from manyheads.config.section_checks import TASK_CHECKS


def everywhere() -> Iterator[tuple[type[Strict], str, Setting]]:
    for section in (Config, TaskConfig, *NESTED.values()):
        for name in section.model_fields:
            yield section, name, setting_of(section, name)


def where(section: type[Strict], **facts: str) -> set[str]:
    return set(
        fields_where(
            section, lambda one: all(getattr(one, key) == fact for key, fact in facts.items())
        )
    )


class Undeclared(TaskConfig):
    new_option: int = 3


class Declared(TaskConfig):
    new_option: Annotated[int, Setting(path="output")] = 3


def test_a_setting_that_declares_nothing_is_compared_and_is_not_a_path() -> None:
    found = setting_of(Undeclared, "new_option")
    assert (found.resume, found.processes, found.compare, found.path) == (
        "same", "same", "same", None,
    )  # fmt: skip
    assert setting_at("a_key_of_a_later_version") == Setting()


@pytest.mark.parametrize("section", [Undeclared, Declared])
def test_a_heads_option_comes_from_the_trained_head_unless_it_declares_otherwise(
    section: type[Strict],
) -> None:
    assert setting_of(section, "new_option").warm_start == "fixed"


def test_every_setting_has_a_role_in_warm_starts() -> None:
    for section, name, found in everywhere():
        assert found.warm_start is not None, (section, name)


def test_a_resumed_run_may_change_where_files_are_and_how_it_runs() -> None:
    assert where(Config, resume="differ") == {
        "train_file", "valid_file", "save_dir", "keep_checkpoints", "checkpoint_every", "device",
        "threads", "log_every", "on_nonfinite", "num_classes", "num_ner_labels", "cache_memory",
        "log_gradients", "tensorboard", "format", "text_field", "text2_field", "tokens_field",
        "map", "label_separator", "role_separator", "files", "hold_out", "hold_out_seed",
        "num_epochs", "early_stopping",
    }  # fmt: skip
    assert where(Config, resume="same name") == {"model_name", "init_from", "refit"}
    assert where(TaskConfig, resume="differ") == {
        "train_file", "valid_file", "format", "map", "label_separator", "role_separator", "scheme",
    }  # fmt: skip
    assert where(KeepEmbeddings, resume="differ") == {"texts"}
    assert where(Teacher, resume="differ") == where(Teacher, path="input") == {"sources", "texts"}
    assert where(Balancing, resume="same") == set(Balancing.model_fields)


def test_settings_that_may_differ_between_processes_may_change_on_resume() -> None:
    for section, name, found in everywhere():
        assert found.processes in ("same", found.resume), (section, name)


def test_all_processes_treat_losses_that_are_not_finite_in_the_same_way() -> None:
    assert setting_of(Config, "on_nonfinite").processes == "same"


def test_a_key_is_looked_up_in_its_own_section() -> None:
    assert setting_at("tasks.ner.train_file").resume == "differ"
    assert setting_at("keep_embeddings.texts").path == "input"
    # A task may have the name of a setting that may differ.
    assert setting_at("best_weights.device").resume == "same"


def test_a_trained_heads_architecture_is_fixed() -> None:
    assert where(TaskConfig, warm_start="fixed") == {
        "kind", "decoder", "neck", "neck_size", "neck_layers", "reads", "pooling", "hidden",
        "word_features",
    }  # fmt: skip
    assert where(TaskConfig, warm_start="inherited") == {"threshold", "score_range"}
    assert where(TaskConfig, warm_start="training") == {
        "train_file", "weight", "batch_size", "ratio", "max_records", "frozen", "start",
    }  # fmt: skip


def test_a_single_task_is_trained_without_the_settings_of_several() -> None:
    assert where(Config, compare="several") == {
        "schedule", "schedule_alpha", "balancing", "best_metric", "best_weights",
        "keep_best_per_task", "num_classes", "num_ner_labels", "log_gradients",
    }  # fmt: skip
    assert where(TaskConfig, compare="several") == {"weight", "ratio"}


def test_paths_are_declared() -> None:
    assert where(Config, path="input") == {
        "train_file", "valid_file", "files", "init_from", "refit",
    }  # fmt: skip
    assert where(Config, path="output") == {"save_dir"}
    assert where(Config, path="model") == {"model_name"}
    assert where(TaskConfig, path="input") == {"train_file", "valid_file"}


def test_every_field_of_a_run_belongs_to_one_section_in_the_order_of_the_sections() -> None:
    assert list(Config.model_fields) == [
        name for section in SECTIONS for name in section.model_fields
    ]


def test_ten_settings_are_shown_first() -> None:
    assert len(fields_where(Config, lambda setting: setting.first)) == 10


def test_rules_have_unique_names() -> None:
    names = [check.name for check in (*CHECKS, *TASK_CHECKS)]
    assert len(set(names)) == len(names)
