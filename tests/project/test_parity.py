"""The command line and Python have the same verbs, options and defaults.

Each exception is listed here with its reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pytest
import typer

import manyheads
from manyheads.cli import COMMANDS
from manyheads.config import Config
from manyheads.exporting import export_model
from manyheads.inference import Runtime
from manyheads.server import ServerSettings
from manyheads.training import add_label

LAYOUT = {
    "format", "input_format", "text_field", "text2_field", "tokens_field", "map", "label_separator",
    "role_separator",
}  # fmt: skip
"""The options for how data are laid out: one `Layout` in Python."""

OTHER_NAMES = {
    "file": "data",  # records in memory as well
    "paths": "data",
    "files": "data",
    "task": "tasks",  # repeated options
    "slice": "slices",
    "test_file": "test_files",
    "cors_origin": "cors_origins",
    "arguments": "texts",
}
NAMES_OF_VERBS = {
    ("compare", "config"): "data",  # data or a configuration, as for `train`
    ("export", "format"): "formats",  # repeated
    ("init", "files"): "files",
    ("predict", "file"): "file",
    ("train", "task"): "settings",  # `tasks`, a field of the configuration
}
NOT_IN_PYTHON = {"json", "set"}  # `to_json` of the result, and keyword arguments

DEFAULTS = {
    ("distill", "save_dir"): (None, "distilled"),  # the command's is in its help alone
    ("predict", "model"): (None, "saved_model"),  # the first argument may be the model
    ("predict", "when_empty"): ("refuse", "flag"),  # answers stay aligned with a list of texts
    ("select", "out"): ("selected.jsonl", None),  # the texts are returned
}
"""By verb and option, the defaults of the command and of Python where they differ."""

ONLY_IN_PYTHON = {
    "progress",  # the command always shows it
    "reporter", "on_step", "on_epoch", "on_unread", "warn",  # functions that are called
    "layout",
    "settings",
    "valid",  # `valid_file`, records in memory as well
    "config",  # beside data in memory
    "text",  # a DataFrame's column
    "task_settings",  # --set tasks.NAME.KEY=VALUE
}  # fmt: skip


def commands() -> dict[str, Any]:
    """All commands by the name of their verb, those of `data` too."""
    found: dict[str, Any] = {}
    for name in COMMANDS:
        app = import_module(f"manyheads.cli.{name.replace('-', '_')}").app
        command: Any = typer.main.get_command(app)
        inner = command.commands if name == "data" else {name: command}
        found |= {verb.replace("-", "_"): one for verb, one in inner.items()}
    return found


def names_of(option: Any) -> list[str]:
    """The names of an option as Python writes them, or that of an argument."""
    flags = [option.name] if option.param_type_name == "argument" else option.opts
    return [flag.lstrip("-").replace("-", "_") for flag in flags]


def defaults_of(verb: str) -> dict[str, Any]:
    """The parameters of a verb with their defaults."""
    found = inspect.signature(getattr(manyheads, verb)).parameters.values()
    values = {one.name: None if one.default is one.empty else one.default for one in found}
    if verb == "serve":
        fields = ServerSettings.model_fields.items()
        values = {**values, **{name: field.default for name, field in fields}}
        del values["report"]
    return values


def parameter_of(verb: str, names: list[str], parameters: Mapping[str, Any]) -> str | None:
    """The parameter that an option stands for."""
    for name in names:
        for one in (NAMES_OF_VERBS.get((verb, name)), name, OTHER_NAMES.get(name)):
            if one in parameters:
                return one
    if "layout" in parameters and set(names) & LAYOUT:
        return "layout"
    return (
        "settings" if "settings" in parameters and set(names) & set(Config.model_fields) else None
    )


def plain(value: Any) -> Any:
    """A default in a form that is alike on both sides."""
    value = getattr(value, "value", value)
    if value is None or value in ((), [], {}):
        return None
    return value if isinstance(value, int | float) else str(value)


COMMAND = commands()


@pytest.mark.parametrize("verb", list(COMMAND))
def test_a_verb_of_python_takes_the_options_of_its_command_with_their_defaults(verb: str) -> None:
    parameters = defaults_of(verb)
    options = {one.name: (names_of(one), one) for one in COMMAND[verb].params}
    found = {
        names[0]: parameter_of(verb, names, parameters)
        for names, _ in options.values()
        if names[0] not in NOT_IN_PYTHON
    }
    assert [name for name, parameter in found.items() if parameter is None] == []
    assert set(parameters) - set(found.values()) <= ONLY_IN_PYTHON
    for names, option in options.values():
        parameter = found.get(names[0])
        if parameter in (None, "layout") or option.required:
            continue
        pair = (option.default, None if parameter == "settings" else parameters[str(parameter)])
        expected = DEFAULTS.get((verb, names[0]))
        if expected is None:
            assert plain(pair[0]) == plain(pair[1]), names
        else:
            assert tuple(map(plain, pair)) == expected, names


def test_every_verb_of_python_is_a_command() -> None:
    verbs = {name for name in manyheads.__all__ if inspect.isfunction(getattr(manyheads, name))}
    assert verbs - COMMAND.keys() == {"load", "load_config"}
    assert COMMAND.keys() <= verbs


@pytest.mark.parametrize("verb", ["load", "predict", "evaluate", "report", "select"])
def test_a_model_runs_by_default_as_the_value_says_that_verbs_make_of_their_options(
    verb: str,
) -> None:
    own, parameters = vars(Runtime()), inspect.signature(getattr(manyheads, verb)).parameters
    assert {name: parameters[name].default for name in own} == own


@pytest.mark.parametrize(
    ("verb", "called"), [(manyheads.export, export_model), (manyheads.add_label, add_label)]
)
def test_defaults_that_are_repeated_because_a_package_needs_torch_are_its_own(
    verb: Any, called: Any
) -> None:
    shared, own = inspect.signature(verb).parameters, inspect.signature(called).parameters
    numbers = [name for name, one in own.items() if isinstance(one.default, int | float)]
    assert "limit" in numbers
    assert [shared[n].default for n in numbers] == [own[n].default for n in numbers]
