"""After any failure of disk, folder or files, a run ends with a message and can be resumed.

The tests run the real commands. The tests that `docs/reliability.md` names must exist.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import fuzz
import fuzz_targets
from documents import rewrite_manifest, write_document
from equal_runs import assert_same_run
from manyheads.cli import main
from manyheads.modeling import list_checkpoints, load_checkpoint, load_model_folder
from manyheads.storage import StorageError
from manyheads.training import train
from small_disk import small_disk
from training_setup import Spy, config, digest, run, settings

ROOT = Path(__file__).parents[2]
SIZES: dict[str, Any] = {"num_epochs": 3, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder, **SIZES)
    return folder / "saved"


def write_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings(folder, **SIZES, **changes)), encoding="utf-8")
    return path


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


# ------------------------------------------------------------------------------------------- disks


def test_a_run_can_be_resumed_after_the_disk_was_full(
    tmp_path: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        path = write_config(tmp_path, save_dir=str(disk / "saved"))
        assert main(["train", str(path)]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert re.search(rf"{disk}/saved/\S+: cannot be written: the disk is full \(", said)
        assert "of 1.0 MB free" in said
        assert "Free some space" in said
        assert "what was saved before is untouched" in said
        saved = list_checkpoints(disk / "saved")
        assert saved
        for file in saved:
            load_checkpoint(file.path)
        if (disk / "saved" / "best").exists():
            load_model_folder(disk / "saved" / "best")
        remount(disk, "size=30m")
        assert main(["train", str(path), "--resume"]) == 0
        assert not [p.name for p in (disk / "saved").iterdir() if p.name.startswith(".")]
        assert_same_run(undisturbed, disk / "saved")


def test_a_run_can_be_resumed_after_the_disk_was_read_only(
    tmp_path: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", "30m") as disk:
        path = write_config(tmp_path, save_dir=str(disk / "saved"))
        remount(disk, "ro")
        assert main(["train", str(path)]) == 2
        said = capsys.readouterr().err
        assert str(disk / "saved") in said
        assert "the file system is read-only" in said
        remount(disk, "rw")
        first = train(config(tmp_path, **SIZES, save_dir=str(disk / "saved")), reporter=Spy())
        remount(disk, "ro")
        before = digest(first.save_dir)
        assert main(["train", str(path), "--resume"]) == 2
        assert main(["evaluate", str(first.save_dir)]) == 0
        assert digest(first.save_dir) == before
        remount(disk, "rw")
        assert_same_run(undisturbed, disk / "saved")


def test_removing_the_folder_during_training_ends_the_run_and_names_it(tmp_path: Path) -> None:
    def remove(step: int) -> None:
        if step == 3:
            shutil.rmtree(tmp_path / "saved")

    with pytest.raises(StorageError, match=r"saved.*: cannot be written: its folder .* removed"):
        train(config(tmp_path, **SIZES), reporter=Spy(remove))


def test_a_save_dir_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    path = write_config(tmp_path, save_dir=str(tmp_path / "file" / "saved"))
    assert main(["train", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}/file/saved" in said
    assert "there is a file where a folder is needed" in said


# -------------------------------------------------------------------------- checkpoints and models


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose last checkpoint is within its second epoch."""

    class Cut(Exception):
        pass

    def cut(step: int) -> None:
        if step == 13:
            raise Cut

    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Cut):
        train(config(folder, **SIZES), reporter=Spy(cut))
    return folder


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def newer(path: Path) -> None:
    write_document(path, lambda tree: tree.update(format_version=2))


@pytest.mark.parametrize("damage", [flipped, newer], ids=lambda d: d.__name__)
def test_resume_falls_back_to_the_newest_intact_checkpoint_and_reports_it(
    stopped: Path,
    undisturbed: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    path = write_config(tmp_path)
    damage(tmp_path / "saved" / "mtl_step12.pt")
    assert main(["train", str(path), "--resume"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"warning: skipped a checkpoint. {tmp_path}/saved/mtl_step12.pt: " in said
    assert f"Continuing from {tmp_path}/saved/mtl_epoch1.pt." in said
    assert_same_run(undisturbed, tmp_path / "saved")


def test_a_model_of_a_newer_format_is_refused_by_every_command(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    best, last = tmp_path / "saved" / "best", tmp_path / "saved" / "mtl_epoch1.pt"
    rewrite_manifest(best, lambda values: values.update(format_version=2))
    newer(last)
    for model in (best, last):
        for arguments in (["info"], ["predict", "--model"], ["evaluate"]):
            extra = ["john"] if arguments[0] == "predict" else []
            assert main([*arguments, str(model), *extra]) == 2
            said = capsys.readouterr().err
            assert str(model) in said
            assert "is of format 2" in said
            assert "pip install --upgrade manyheads" in said


def test_files_swapped_between_two_models_are_refused_by_name(
    stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "other", seed=3)
    other = tmp_path / "other" / "saved" / "best"
    for name in ("model.safetensors", "heads.safetensors", "manyheads.json", "config.json"):
        mixed = shutil.copytree(stopped / "saved" / "best", tmp_path / f"mixed-{name}")
        if name == "config.json":
            (mixed / name).write_bytes((other / name).read_bytes() + b"\n")
        else:
            shutil.copy(other / name, mixed / name)
        for arguments in (["info", str(mixed)], ["predict", "--model", str(mixed), "john"]):
            assert main(arguments) == 2
            said = capsys.readouterr().err
            assert str(mixed) in said
            assert "another model" in said


# ------------------------------------------------------------------------------ the document itself


def test_every_promise_names_tests_that_exist() -> None:
    document, soak = (
        (ROOT / "docs" / page).read_text(encoding="utf-8")
        for page in ("reliability.md", "soak-tests.md")
    )
    named = re.findall(r"`([\w/]+/test_\w+\.py|test_\w+\.py)::(test_\w+)`", document + soak)
    assert len(named) > 40
    for file, test in named:
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {test}\(", text, re.MULTILINE), f"{file}::{test}"
    sections = [part for part in document.split("\n## ") if "<details" in part]
    assert len(sections) >= 5
    for section in sections:
        promises, tests = (re.findall(r"^\d+\. ", part, re.M) for part in section.split("<details"))
        assert promises == tests


def test_the_fuzzer_finds_nothing_in_a_few_thousand_cases(tmp_path: Path) -> None:
    assert fuzzed(tmp_path, cases=4000, seed=11)["cases"] >= 4000


def fuzzed(folder: Path, cases: int, seed: int) -> dict[str, Any]:
    tallies = {name: fuzz.Tally() for name in fuzz_targets.TARGETS}
    bench = fuzz_targets.Bench.set_up(folder)
    with fuzz.limited_memory():
        fuzz.fuzz(cases, seed, tallies, bench)
    assert [line for tally in tallies.values() for line in tally.findings] == []
    return fuzz.report_of(seed, tallies)


@pytest.mark.soak
def test_a_million_generated_cases_are_accepted_or_refused(tmp_path: Path) -> None:
    print(json.dumps(report := fuzzed(tmp_path, cases=1_000_000, seed=0)))
    assert report["cases"] >= 1_000_000
