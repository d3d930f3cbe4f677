"""The wheel holds the package alone, and requirements agree with pyproject.toml."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
LAUNCHERS = ("train", "evaluate", "predict")

IMPORTED = (
    "import sys, manyheads; from manyheads import load; import manyheads.config as c; "
    "print(c.__name__.split('.')[-1], [n for n in sys.modules if n.endswith('manyheads')])"
)

# The extra that is made of the others.
NOT_PINNED = ("all",)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, as building leaves files behind."""
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignored)
    for name in ("__init__.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def build(checkout: Path, hook: str) -> Path:
    """Build a wheel with the backend itself, as pip and build do, without their environments."""
    script = f"from setuptools.build_meta import {hook} as build; print(build('dist'))"
    (checkout / "dist").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return checkout / "dist" / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    return build(checkout, "build_wheel")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pinned(name: str) -> list[Requirement]:
    """The requirements of a file, each checked to be a pin."""
    found = []
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "-r ")):
            requirement = Requirement(line)
            assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), line
            found.append(requirement)
    return found


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path, checkout: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {
        file.relative_to(checkout / "src").as_posix()
        for file in (checkout / "src" / "manyheads").rglob("*")
        if file.is_file()
    }
    assert names == sources
    assert "manyheads/py.typed" in names


def test_the_wheel_carries_the_licence_and_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        assert "manyheads = manyheads.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
        metadata = archive.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert "torch" not in {
        Requirement(line.split(": ", 1)[1]).name
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist:") and "extra ==" not in line
    }


def test_the_wheel_works_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    script = "import manyheads.cli; print(manyheads.__file__); manyheads.cli.main(['--version'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=empty, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file, version = done.stdout.splitlines()
    assert Path(file) == site / "manyheads" / "__init__.py"
    assert version.startswith("manyheads ")


def test_an_editable_install_does_not_put_the_launchers_on_the_path(checkout: Path) -> None:
    # A plain .pth with the folder src/ would make `import evaluate` find src/evaluate.py.
    with zipfile.ZipFile(build(checkout, "build_editable")) as archive:
        paths = [archive.read(n).decode() for n in archive.namelist() if n.endswith(".pth")]
        finders = [archive.read(n).decode() for n in archive.namelist() if n.endswith(".py")]
    assert all(line.startswith("import ") for path in paths for line in path.splitlines())
    mapping = next(line for text in finders for line in text.splitlines() if "MAPPING:" in line)
    assert "'manyheads'" in mapping
    assert not [name for name in LAUNCHERS if f"'{name}'" in mapping]


@pytest.mark.parametrize("command", [["-c", IMPORTED], ["-m", "manyheads", "--version"]])
def test_the_package_is_found_in_the_folder_that_contains_the_checkout(
    command: list[str], checkout: Path, tmp_path: Path
) -> None:
    # An editable install is asked last: a folder of the package's name would come before it.
    (tmp_path / "manyheads").symlink_to(checkout)
    libraries = os.pathsep.join(p for p in sys.path if "site-packages" in p)
    done = subprocess.run(
        [sys.executable, "-S", *command],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": libraries}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("config ['manyheads']", "manyheads "))


@pytest.mark.parametrize("verb", LAUNCHERS)
def test_launchers_work_in_a_checkout_that_is_not_installed(
    verb: str, checkout: Path, tmp_path: Path
) -> None:
    # -S leaves out the path of an editable install; the dependencies come by PYTHONPATH.
    libraries = os.pathsep.join(p for p in sys.path if "site-packages" in p)
    done = subprocess.run(
        [sys.executable, "-S", str(checkout / "src" / f"{verb}.py"), "--help"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": libraries}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_every_dependency_is_pinned_within_its_range(project: dict[str, Any]) -> None:
    pins: dict[str, list[Requirement]] = {}
    for requirement in pinned("requirements.txt") + pinned("requirements-dev.txt"):
        pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    extras = project["optional-dependencies"]
    ranges = [*project["dependencies"]]
    ranges += [text for name in extras if name not in NOT_PINNED for text in extras[name]]
    for wanted in map(Requirement, ranges):
        found = pins.get(canonicalize_name(wanted.name))
        assert found, f"{wanted} has no pin"
        for pin in found:
            (version,) = (spec.version for spec in pin.specifier)
            assert wanted.specifier.contains(version), f"{pin} is outside {wanted}"
    names = {canonicalize_name(Requirement(text).name) for text in ranges}
    assert set(pins) == names, "pyproject.toml and the requirements name different packages"


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_each_python_gets_exactly_one_version_of_each_package(file: str, python: str) -> None:
    names = [
        requirement.name
        for requirement in pinned(file)
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python})
    ]
    assert len(names) == len(set(names))
    assert set(names) == {requirement.name for requirement in pinned(file)}


def test_the_tests_run_with_the_pinned_versions() -> None:
    for requirement in pinned("requirements.txt") + pinned("requirements-dev.txt"):
        if requirement.marker is None or requirement.marker.evaluate():
            installed = importlib.metadata.version(requirement.name).split("+")[0]
            assert requirement.specifier.contains(installed), f"{requirement}: {installed}"


def test_all_is_every_extra_for_users(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    (everything,) = map(Requirement, extras["all"])
    assert everything.extras == set(extras) - {"all", "dev"}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ("*version_info*) exit 1;;", "is Python 3.9.2; Manyheads needs Python 3.10 or newer"),
        ("*ensurepip*) exit 1;;", "has no venv module. On Debian or Ubuntu: apt install"),
    ],
)
def test_make_says_what_is_missing_on_a_machine(answers: str, message: str, tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\ncase "$*" in {answers} esac\necho Python 3.9.2\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "install", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in done.stdout + done.stderr
    assert not (tmp_path / "venv").exists()


def test_the_image_is_built_from_files_that_exist_and_are_let_in() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    copied = [
        source
        for line in re.findall(r"^COPY (.+)$", dockerfile, flags=re.MULTILINE)
        for source in line.split()[:-1]
    ]
    let_in = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), flags=re.MULTILINE)
    assert sorted(copied) == sorted(let_in)
    assert not [name for name in copied if not (ROOT / name).exists()]
