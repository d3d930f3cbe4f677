"""A checkpoint loads exactly or is refused by name; the last good one is never lost."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from documents import ENCODER, contents, write_document
from manyheads.errors import ManyheadsError, ModelError
from manyheads.modeling import (
    CheckpointContents,
    digest_of_tensor,
    epoch_path,
    list_checkpoints,
    load_checkpoint,
    newest_intact,
    plain,
    prune,
    remove_checkpoints,
    save_checkpoint,
    step_path,
)
from manyheads.modeling.checkpoint import Position, read_position
from manyheads.storage import StorageError
from nested_values import PLAIN, nested
from small_disk import small_disk


def equal(a: Any, b: Any) -> bool:
    """Compare nested values: their types, and every bit of their tensors."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape
        return same and digest_of_tensor(a.contiguous()) == digest_of_tensor(b.contiguous())
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and ascii(a) == ascii(b)


def fields(values: CheckpointContents) -> dict[str, Any]:
    return {name: getattr(values, name) for name in CheckpointContents.__slots__} | {
        "model": dict(values.model),
        "tasks": list(values.tasks),
        "encoder": values.encoder == ENCODER,
    }


# Round trips


def test_everything_is_restored_exactly(tmp_path: Path) -> None:
    saved = contents()
    save_checkpoint(tmp_path / "a.pt", saved)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert equal(fields(loaded), fields(saved))
    torch.optim.AdamW(torch.nn.Linear(4, 3).parameters()).load_state_dict(
        dict(loaded.training["optimizer"])
    )


TENSORS = st.builds(
    lambda shape, dtype, seed: torch.randint(
        0, 2, shape, generator=torch.Generator().manual_seed(seed)
    ).to(dtype),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool]),
    st.integers(0, 100),
)


@given(st.dictionaries(st.text(), nested(PLAIN | TENSORS), max_size=4))
@settings(max_examples=40)
def test_any_training_state_is_restored_exactly(
    tmp_path_factory: pytest.TempPathFactory, training: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "property.pt"
    before = copy.deepcopy(training)
    save_checkpoint(path, contents(training=training))
    assert equal(load_checkpoint(path).training, before)


def test_the_same_contents_make_the_same_bytes(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", contents())
    save_checkpoint(tmp_path / "other name.pt", contents())
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "other name.pt").read_bytes()


def test_plain_torch_can_read_a_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", contents())
    document = torch.load(tmp_path / "a.pt", weights_only=True)
    assert set(document) == {
        "format", "format_version", "manyheads_version", "epoch", "step", "config", "tasks",
        "encoder", "model", "training", "manifest",
    }  # fmt: skip
    assert equal(document["model"], dict(contents().model))


def test_shared_tensors_are_written_once_and_views_without_their_base(tmp_path: Path) -> None:
    large = torch.randn(300, 300)
    model = {"a": large, "tied": large, "row": large[7], "turned": large[:2].T}
    save_checkpoint(tmp_path / "a.pt", contents(model=model))
    assert (tmp_path / "a.pt").stat().st_size < large.nbytes + 30_000
    loaded = load_checkpoint(tmp_path / "a.pt").model
    assert equal(loaded, model)
    assert loaded["a"].data_ptr() == loaded["tied"].data_ptr()


def test_parameters_are_saved_as_plain_tensors_and_do_not_change(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    save_checkpoint(tmp_path / "a.pt", contents(model={"a": parameter}))
    assert parameter.requires_grad
    assert not load_checkpoint(tmp_path / "a.pt").model["a"].requires_grad


def test_loaded_tensors_do_not_depend_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, contents())
    loaded = load_checkpoint(path)
    path.write_bytes(b"")
    assert equal(dict(loaded.model), dict(contents().model))


def test_a_numpy_float_is_saved_as_a_plain_number(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", contents(training={"score": np.float64(0.1)}))
    assert load_checkpoint(tmp_path / "a.pt").training == {"score": 0.1}


def _nested(depth: int) -> Any:
    return [_nested(depth - 1)] if depth else 0


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {1, 2}}, r"/training/a is a set \(\{1, 2\}\), which a checkpoint cannot hold"),
        ({"a": [0, np.zeros(2)]}, r"/training/a/1 is a ndarray"),
        ({"a": torch.float32}, r"/training/a is a dtype"),
        ({"a": b"bytes"}, r"/training/a is a bytes"),
        ({"a": 2**2000}, r"/training/a is a int"),
        ({(1, 2): 3}, r"key \(1, 2\) of /training is neither text nor an integer"),
        ({True: 3}, r"key True of /training is neither"),
        ({2**31: 3}, r"key 2147483648 of /training is neither text nor an integer of 32 bits"),
        ({"a": torch.zeros(2).to_sparse()}, r"/training/a is a torch.float32, torch.sparse_coo"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, r"/training/a is a torch.complex64"),
        ({"a": _nested(70)}, r"/training/a/0/0.* is nested more than 64 levels deep"),
    ],
)
def test_values_that_a_checkpoint_cannot_hold_are_named_before_anything_is_written(
    tmp_path: Path, value: dict[Any, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        save_checkpoint(tmp_path / "a.pt", contents(training=value))
    assert list(tmp_path.iterdir()) == []


# Damage


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("intact") / "mtl_epoch1.pt"
    save_checkpoint(path, contents())
    return path


def test_the_error_for_a_flipped_bit_in_a_tensor_names_it(tmp_path: Path, intact: Path) -> None:
    saved = contents()
    for name, tensor in (
        ("/model/weight", saved.model["weight"]),
        ("/training/optimizer/state/0/exp_avg", saved.training["optimizer"]["state"][0]["exp_avg"]),
        ("/training/rng", saved.training["rng"]),
    ):
        data = bytearray(intact.read_bytes())
        at = data.index(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        data[at + 3] ^= 0x10
        path = tmp_path / "a.pt"
        path.write_bytes(data)
        message = re.escape(f"{path}: is damaged: the checksum of tensor '{name}' is wrong")
        with pytest.raises(ModelError, match=message):
            load_checkpoint(path)


def test_a_flipped_bit_anywhere_is_refused_or_without_effect(tmp_path: Path, intact: Path) -> None:
    original = intact.read_bytes()
    path = tmp_path / "a.pt"
    expected = fields(contents())
    refused = 0
    places = range(0, len(original), 47)
    for at in places:
        data = bytearray(original)
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        try:
            assert equal(fields(load_checkpoint(path)), expected), f"byte {at} changed the contents"
        except ModelError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            refused += 1
    # The rest is padding, times and the like, which have no effect.
    assert refused > len(places) / 3


def test_a_truncated_file_is_refused(tmp_path: Path, intact: Path) -> None:
    original = intact.read_bytes()
    path = tmp_path / "a.pt"
    for length in {0, 1, 3, 4, 30, *range(100, len(original), 997), len(original) - 1}:
        path.write_bytes(original[:length])
        with pytest.raises(ModelError, match=r"is damaged: it is cut|is empty|is not a torch file"):
            load_checkpoint(path)


def test_a_changed_value_is_refused(tmp_path: Path, intact: Path) -> None:
    document = torch.load(intact, weights_only=True)
    document["training"]["best"] = 0.5
    torch.save(document, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="is damaged: the checksum of its values is wrong"):
        load_checkpoint(tmp_path / "a.pt")


def test_tensors_of_another_checkpoint_are_refused(tmp_path: Path, intact: Path) -> None:
    document = torch.load(intact, weights_only=True)
    document["model"] = dict(contents(step=11).model)
    torch.save(document, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="the checksum of tensor '/model/weight' is wrong"):
        load_checkpoint(tmp_path / "a.pt")


def test_the_errors_for_a_missing_file_and_a_folder_explain_them(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"a\.pt: cannot be read: there is no such file"):
        load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(StorageError, match="cannot be read: it is a folder; expected a file"):
        load_checkpoint(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="it is a device or a pipe; expected a file"):
        load_checkpoint(tmp_path / "pipe")


# Other files


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    write_document(
        tmp_path / "a.pt", lambda tree: tree.update(format_version=2, manyheads_version="9.1")
    )
    message = "is of format 2, written by Manyheads '9.1'; expected format 1 or older. Upgrade"
    with pytest.raises(ModelError, match=message):
        load_checkpoint(tmp_path / "a.pt")


def test_another_programs_checkpoint_is_refused(tmp_path: Path) -> None:
    for value in (contents().model, [1, 2], {"format": "something else"}):
        torch.save(plain(value), tmp_path / "a.pt")
        with pytest.raises(ModelError, match="a torch file, but not a checkpoint of Manyheads"):
            load_checkpoint(tmp_path / "a.pt")


def test_code_pickled_in_a_checkpoint_is_not_executed(tmp_path: Path, intact: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
            return os.mkdir, (os.fspath(tmp_path / "executed"),)

    document = torch.load(intact, weights_only=True)
    document["training"]["scheduler"] = Bomb()
    torch.save(document, tmp_path / "mtl_epoch1.pt")
    for read in (load_checkpoint, read_position):
        with pytest.raises(ModelError, match=r"asks for the Python object 'posix\.mkdir'"):
            read(tmp_path / "mtl_epoch1.pt")
    found, refused = newest_intact(tmp_path)
    assert found is None
    assert [file.path.name for file in refused] == ["mtl_epoch1.pt"]
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(format_version="1"), "has '1' as its format version"),
        (lambda t: t.update(format_version=0), "has 0 as its format version"),
        (lambda t: t.pop("step"), "has None as step; expected a value that Manyheads writes"),
        (lambda t: t.update(epoch=-1), "has -1 as epoch"),
        (lambda t: t.update(step=True), "has True as step"),
        (lambda t: t.update(config=[]), r"has \[\] as config"),
        (lambda t: t.update(tasks=[]), r"has \[\] as tasks"),
        (lambda t: t.update(tasks=["intent"]), r"has \['intent'\] as tasks"),
        (lambda t: t.update(training=None), "has None as training"),
        (lambda t: t.update(manyheads_version=1), "has 1 as manyheads_version"),
        (lambda t: t["model"].update(extra=5), "has {'extra': 5} as model"),
        (lambda t: t["model"].update({3: torch.zeros(1)}), "has {3: tensor.* as model"),
        (lambda t: t["encoder"].update(pooling="evil"), "has 'evil' as encoder.pooling"),
        (lambda t: t["encoder"].update(normalize=1), "has 1 as encoder.normalize"),
        (lambda t: t["encoder"].update(max_length=2.5), "has 2.5 as encoder.max_length"),
        (lambda t: t["encoder"].update(files={"a": 1}), "has 1 as encoder.files.a"),
        (lambda t: t["encoder"].update(files={1: "a"}), "has {1: 'a'} as encoder.files"),
        (
            lambda t: t["encoder"]["config"].update(auto_map={"AutoModel": "evil.Evil"}),
            'config.json: "auto_map" asks for code from the model to be run',
        ),
        (
            lambda t: t["encoder"]["files"].update({"tokenizer_config.json": '{"auto_map": [1]}'}),
            'tokenizer_config.json: "auto_map" asks for code',
        ),
        (
            lambda t: t["encoder"]["files"].update({"tokenizer.json": '{"auto_map": {}}'}),
            'tokenizer.json: "auto_map" asks for code',
        ),
        (
            lambda t: t["encoder"]["files"].update({"tokenizer.json": "[" * 10_000}),
            "tokenizer.json: is nested more than 100 levels deep",
        ),
        (
            lambda t: t["encoder"]["files"].update({"tokenizer.json": "[]"}),
            "tokenizer.json: is not a JSON object",
        ),
    ],
)
def test_a_hostile_checkpoint_with_right_checksums_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    write_document(tmp_path / "a.pt", change)
    with pytest.raises(ModelError, match=message):
        load_checkpoint(tmp_path / "a.pt")


def test_an_unchanged_document_from_the_helper_is_accepted(tmp_path: Path) -> None:
    write_document(tmp_path / "a.pt", lambda tree: None)
    assert equal(fields(load_checkpoint(tmp_path / "a.pt")), fields(contents()))


# Saving that fails


class Killed(BaseException):
    """Simulates the end of the process: nothing after it is executed."""


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_run_killed_while_saving_keeps_its_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    save_checkpoint(epoch_path(tmp_path, 1), contents(1, 10))
    with monkeypatch.context() as patch:
        patch.setattr(os if step == "fsync" else Path, step, die)
        patch.setattr(Path, "unlink", die)
        with pytest.raises(Killed):
            save_checkpoint(epoch_path(tmp_path, 2), contents(2, 20))
    assert len(names(tmp_path)) == 2
    found, refused = newest_intact(tmp_path)
    assert found is not None
    assert (found.contents.epoch, refused) == (1, ())
    save_checkpoint(epoch_path(tmp_path, 2), contents(2, 20))
    assert names(tmp_path) == ["mtl_epoch1.pt", "mtl_epoch2.pt"]


def test_a_disk_that_fills_up_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        save_checkpoint(epoch_path(disk, 1), contents(1, 10))
        before = epoch_path(disk, 1).read_bytes()
        large = {f"w{i}": torch.zeros(64, 1024) for i in range(8)}
        for path in (epoch_path(disk, 1), epoch_path(disk, 2)):
            message = re.escape(f"{path}: cannot be written: the disk is full (")
            with pytest.raises(StorageError, match=message):
                save_checkpoint(path, contents(2, 20, model=large))
        assert [path.name for path in disk.iterdir()] == ["mtl_epoch1.pt"]
        assert epoch_path(disk, 1).read_bytes() == before


# Many checkpoints


def fill(folder: Path, *positions: tuple[str, int, int]) -> None:
    for kind, epoch, step in positions:
        path = epoch_path(folder, epoch) if kind == "epoch" else step_path(folder, step)
        save_checkpoint(path, contents(epoch, step))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def damage(path: Path) -> None:
    """Flip a bit of a tensor, which only a full read detects."""
    data = bytearray(path.read_bytes())
    data[data.index(load_checkpoint(path).model["weight"].numpy().tobytes())] ^= 1
    path.write_bytes(data)


def test_only_checkpoints_are_listed_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    fill(tmp_path, ("epoch", 10, 100), ("epoch", 9, 90), ("step", 9, 95))
    for name in ("mtl_epoch3.pt.bak", "mtl_epochX.pt", "model.pt", ".mtl_epoch1.pt"):
        (tmp_path / name).touch()
    (tmp_path / "mtl_epoch7.pt").mkdir()
    assert [(f.path.name, f.is_epoch, f.number) for f in list_checkpoints(tmp_path)] == [
        ("mtl_epoch9.pt", True, 9),
        ("mtl_epoch10.pt", True, 10),
        ("mtl_step95.pt", False, 95),
    ]
    assert list_checkpoints(tmp_path / "missing") == ()


def test_a_position_is_read_without_the_tensors(tmp_path: Path) -> None:
    fill(tmp_path, ("step", 3, 35))
    damage(step_path(tmp_path, 35))
    assert read_position(step_path(tmp_path, 35)) == Position(35, False, 3)


@pytest.mark.parametrize(
    ("positions", "newest"),
    [
        ([("epoch", 1, 10), ("epoch", 2, 20)], "mtl_epoch2.pt"),
        ([("epoch", 9, 90), ("epoch", 10, 100)], "mtl_epoch10.pt"),
        ([("epoch", 1, 10), ("step", 1, 15)], "mtl_step15.pt"),
        ([("epoch", 2, 20), ("step", 1, 15)], "mtl_epoch2.pt"),
        ([("epoch", 2, 20), ("step", 1, 20)], "mtl_epoch2.pt"),
    ],
)
def test_the_newest_is_the_one_furthest_in_the_run(
    tmp_path: Path, positions: list[tuple[str, int, int]], newest: str
) -> None:
    fill(tmp_path, *positions)
    found, refused = newest_intact(tmp_path)
    assert found is not None
    assert (found.path.name, refused) == (newest, ())


def test_damaged_checkpoints_are_skipped_in_favour_of_the_newest_intact_one(tmp_path: Path) -> None:
    fill(tmp_path, ("epoch", 1, 10), ("epoch", 2, 20), ("epoch", 3, 30), ("step", 3, 35))
    epoch_path(tmp_path, 4).write_bytes(b"")
    damage(epoch_path(tmp_path, 3))
    step_path(tmp_path, 35).write_bytes(step_path(tmp_path, 35).read_bytes()[:-5])
    found, refused = newest_intact(tmp_path)
    assert found is not None
    assert (found.path.name, found.contents.step) == ("mtl_epoch2.pt", 20)
    messages = {file.path.name: str(file.error) for file in refused}
    assert set(messages) == {"mtl_epoch3.pt", "mtl_epoch4.pt", "mtl_step35.pt"}
    assert "the checksum of tensor '/model/weight' is wrong" in messages["mtl_epoch3.pt"]
    assert "is empty" in messages["mtl_epoch4.pt"]
    assert "it is cut" in messages["mtl_step35.pt"]


def test_without_any_checkpoint_there_is_no_newest(tmp_path: Path) -> None:
    assert newest_intact(tmp_path) == (None, ())
    assert newest_intact(tmp_path / "missing") == (None, ())


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (1, ["mtl_epoch3.pt", "mtl_step35.pt"]),
        (2, ["mtl_epoch2.pt", "mtl_epoch3.pt", "mtl_step35.pt"]),
        (9, ["mtl_epoch1.pt", "mtl_epoch2.pt", "mtl_epoch3.pt", "mtl_step35.pt"]),
        (None, ["mtl_epoch1.pt", "mtl_epoch2.pt", "mtl_epoch3.pt", "mtl_step35.pt"]),
    ],
)
def test_only_the_newest_checkpoints_are_kept(
    tmp_path: Path, keep: int | None, left: list[str]
) -> None:
    fill(tmp_path, ("step", 3, 33), ("step", 3, 35))
    fill(tmp_path, ("epoch", 1, 10), ("epoch", 2, 20), ("epoch", 3, 30), ("step", 1, 15))
    removed = prune(tmp_path, keep)
    assert names(tmp_path) == left
    assert len(removed) == 6 - len(left)
    assert prune(tmp_path, keep) == ()


def test_a_checkpoint_within_an_epoch_is_removed_at_its_end(tmp_path: Path) -> None:
    fill(tmp_path, ("step", 0, 10), ("epoch", 1, 10))
    prune(tmp_path, None)
    assert names(tmp_path) == ["mtl_epoch1.pt"]


def test_unreadable_checkpoints_are_neither_counted_nor_removed(tmp_path: Path) -> None:
    fill(tmp_path, ("epoch", 1, 10), ("epoch", 2, 20))
    epoch_path(tmp_path, 3).write_bytes(b"")
    prune(tmp_path, 1)
    assert names(tmp_path) == ["mtl_epoch2.pt", "mtl_epoch3.pt"]
    with pytest.raises(ValueError, match="keep is 0; it must be at least 1"):
        prune(tmp_path, 0)


def test_a_run_that_starts_afresh_removes_every_checkpoint(tmp_path: Path) -> None:
    fill(tmp_path, ("epoch", 1, 10), ("step", 1, 15))
    epoch_path(tmp_path, 3).write_bytes(b"")
    (tmp_path / "metrics.jsonl").touch()
    assert len(remove_checkpoints(tmp_path)) == 3
    assert names(tmp_path) == ["metrics.jsonl"]


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_arbitrary_bytes_are_refused_with_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pt"
    path.write_bytes(data)
    with pytest.raises(ManyheadsError):
        load_checkpoint(path)
