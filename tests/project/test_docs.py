"""The examples in the documentation are valid, and its pages make no request to other hosts."""

from __future__ import annotations

import inspect
import re
import shlex
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest
import typer
import yaml

import manyheads
from manyheads.cli import COMMANDS, main
from manyheads.config import Config, load_config

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.stem != "configuration"),
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^ *```{language}\n(.*?)^ *```",
        page.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )


def commands(page: Path) -> list[list[str]]:
    """The `manyheads` commands in a page's console examples, without what they print."""
    text = "\n".join(blocks(page, "console")).replace("\\\n", " ")
    lines = [line.strip()[2:] for line in text.splitlines() if line.strip().startswith("$ ")]
    calls = [shlex.split(line) for line in lines]
    return [call[call.index("manyheads") + 1 :] for call in calls if "manyheads" in call]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_configuration_in_a_page_is_valid(page: Path, tmp_path: Path) -> None:
    for number, example in enumerate(blocks(page, "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(example, encoding="utf-8")
        config = load_config(file)
        assert set(yaml.safe_load(example)) <= set(type(config).model_fields)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_option_in_a_page_is_in_the_help_of_its_command(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for call in commands(page):
        verb = call[:2] if call[0] == "data" else call[:1]
        assert main([*verb, "--help"]) == 0
        known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
        used = {word.replace("_", "-") for word in call if word.startswith("--")}
        assert used <= known, f"{page.name}: manyheads {' '.join(call)}"


def test_the_settings_beside_those_of_the_trainer_are_settings_of_both() -> None:
    from transformers import EarlyStoppingCallback, TrainingArguments  # takes long

    page = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    section = page.partition("### Coming from the Trainer")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")][1:]
    columns = zip(*rows, strict=True)
    theirs, ours = (set(re.findall(r"`(\w+)`", " ".join(cells))) for cells in columns)
    known = {*signature(TrainingArguments).parameters, EarlyStoppingCallback.__name__}
    known.add("warmup_ratio")  # until version 5
    assert theirs <= known | {*signature(EarlyStoppingCallback).parameters}
    assert ours <= set(Config.model_fields)
    assert len(rows) > 12


def options(command: str) -> set[str]:
    """The names of a command's options, as Python would have them."""
    known: set[str] = set()
    module = typer.main.get_command(import_module(f"manyheads.cli.{command}").app)
    for one in getattr(module, "commands", {command: module}).values():
        known.update(name.strip("-").replace("-", "_") for p in one.params for name in p.opts)
    return known


def test_every_argument_with_another_name_than_its_option_is_in_the_table() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    table = page.partition("| command | Python |")[2].partition("\n\n")[0]
    python = {
        name
        for row in table.splitlines()
        for cell in re.findall(r"`([^`]+)`", row.rpartition(" | ")[2])
        for name in re.findall(r"^\w+", cell)
    }
    typed = set().union(*(options(command.replace("-", "_")) for command in COMMANDS))
    verbs = [getattr(manyheads, name) for name in manyheads.__all__]
    arguments = {
        name
        for verb in verbs
        if inspect.isfunction(verb) and verb not in (manyheads.load, manyheads.load_config)
        for name, one in signature(verb).parameters.items()
        if one.kind is one.KEYWORD_ONLY
    }
    # What no command has: callbacks, and the column of a DataFrame.
    alone = {"on_epoch", "on_step", "reporter", "on_unread", "warn", "text"}
    assert {"formats", "task_settings", "test_files", *alone} <= arguments - typed
    assert arguments - typed - alone <= python
    assert python <= arguments | {"to_json"}


def test_the_members_that_the_python_page_chooses_exist() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    chosen = re.findall(
        r"^::: (\S+)\n    options:\n(?:      .*\n)*?      members: \[(.*)\]", page, re.M
    )
    assert dict(chosen).keys() == {"manyheads.Layout", "manyheads.Predictor"}
    for owner, members in chosen:
        for member in members.split(", "):
            assert hasattr(getattr(manyheads, owner.partition(".")[2]), member)


def test_every_environment_variable_that_the_code_reads_is_in_a_page() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    read = set()
    for path in (ROOT / "src" / "manyheads").rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        # Ray's own are set for the cluster that a command starts.
        if "os.environ" in code and path.parent.name != "ray":
            read.update(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', code))
    assert {"MANYHEADS_TRACEBACK", "OMP_NUM_THREADS"} <= read
    assert not {name for name in read if f"`{name}" not in pages}


def test_the_site_loads_nothing_from_other_hosts() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert re.search(r"^  font: false", config, re.MULTILINE)
    assert "http" not in config
