"""The page of all keys shows the schema as it is, and the help says the same."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from manyheads.cli import main
from manyheads.config import NESTED, Config, TaskConfig, key_groups

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_file_location("configuration_page", ROOT / "scripts" / "settings_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_schema_as_it_is() -> None:
    # In a process of its own: a test may have registered a kind of task.
    command = [sys.executable, str(ROOT / "scripts" / "settings_page.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_key_that_users_set_has_a_row_with_values_and_meaning(script: ModuleType) -> None:
    keys = {key.name: key for group in key_groups() for key in group.keys}
    assert set(keys) == {
        *(name for name in Config.model_fields if name != "refit"),
        *(f"tasks.NAME.{name}" for name in TaskConfig.model_fields if name != "carried"),
        *(f"{name}.{key}" for name, section in NESTED.items() for key in section.model_fields),
    }
    rows = script.page().splitlines()
    for key in keys.values():
        (row,) = (row for row in rows if row.startswith(f"| `{key.name}`"))
        assert key.allowed
        assert key.meaning.replace("|", r"\|") in row


def test_every_key_that_the_page_calls_a_flag_is_one(
    script: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    (others,) = re.findall(
        r"Each key without a dot below, other than (.*?), is also a flag", script.INTRODUCTION
    )
    assert main(["train", "--help"]) == 0
    flags = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
    keys = {key.name for group in key_groups() for key in group.keys if "." not in key.name}
    no_flags = {key for key in keys if f"--{key.replace('_', '-')}" not in flags}
    assert no_flags == set(re.findall(r"`(\w+)`", others))
