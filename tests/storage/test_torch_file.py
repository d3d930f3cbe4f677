"""Torch files: valid ones are read; those that could run code or exhaust memory are refused."""

from __future__ import annotations

import copy
import io
import os
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyheads.errors import ModelError
from manyheads.modeling import leaves, pointer
from manyheads.modeling.checkpoint_values import MAX_DEPTH, read_torch_file
from manyheads.storage.torch_file import MAX_RECORDS, check_pickle
from nested_values import PLAIN, nested

# Pickles, opcode by opcode, as pickletools names them.
PROTO, STOP, MARK, EMPTY_DICT, EMPTY_LIST = b"\x80\x02", b".", b"(", b"}", b"]"
TUPLE1, TUPLE2, REDUCE, BUILD, PERSID, SETITEM, APPEND = (
    b"\x85",
    b"\x86",
    b"R",
    b"b",
    b"Q",
    b"s",
    b"a",
)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def long(value: int) -> bytes:
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def glob(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def program(*body: bytes) -> bytes:
    return PROTO + b"".join(body) + STOP


def tuple_of(*items: bytes) -> bytes:
    return MARK + b"".join(items) + b"t"


def storage(kind: str = "Float", key: str = "0", count: int = 4, place: str = "cpu") -> bytes:
    return (
        tuple_of(
            text("storage"), glob(f"torch.{kind}Storage"), text(key), text(place), number(count)
        )
        + PERSID
    )


def tensor(
    content: bytes = b"",
    *,
    offset: int = 0,
    shape: tuple[int, ...] = (4,),
    stride: tuple[int, ...] = (1,),
    grad: bytes = b"\x89",
    hooks: bytes = b"",
) -> bytes:
    return (
        glob("torch._utils._rebuild_tensor_v2")
        + tuple_of(
            content or storage(),
            number(offset),
            tuple_of(*map(long, shape)),
            tuple_of(*map(long, stride)),
            grad,
            hooks or glob("collections.OrderedDict") + b")" + REDUCE,
        )
        + REDUCE
    )


def torch_file(body: bytes, records: dict[str, bytes] | None = None, **options: Any) -> bytes:
    """Make a zip like torch's around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("archive/data.pkl", body)
        for name, data in {"data/0": bytes(16), "version": b"3\n", **(records or {})}.items():
            archive.writestr(f"archive/{name}", data)
    return file.getvalue()


def read(data: bytes) -> Any:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return read_torch_file(file, "file")


def saved(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


class Bomb:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (os.fspath(self.path),)


# The bytes that were checked are the bytes that are used


@pytest.mark.parametrize("change", ["replaced", "overwritten", "cut"])
@pytest.mark.parametrize("tensors", [True, False])
def test_a_file_that_changes_after_its_check_is_read_as_it_was_checked(
    change: str, tensors: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(saved({"step": 1, "tensor": torch.full((20_000,), 1.0)}))
    other = saved({"step": 2, "tensor": torch.full((20_000,), 2.0)})
    load = torch.load

    def change_and_load(*args: Any, **options: Any) -> Any:
        if change == "replaced":
            (tmp_path / "other.pt").write_bytes(other)
            (tmp_path / "other.pt").replace(path)
        else:
            path.write_bytes(other if change == "overwritten" else b"")
        return load(*args, **options)

    monkeypatch.setattr(torch, "load", change_and_load)
    with path.open("rb") as file:
        value = read_torch_file(file, "file", tensors=tensors)
    assert value["step"] == 1
    assert value["tensor"][10_000] == float(tensors)


# Valid files


@given(nested(PLAIN))
@settings(max_examples=100)
def test_plain_values_are_read_as_pickle_wrote_them(value: Any) -> None:
    assert ascii(read(torch_file(pickle.dumps(copy.deepcopy(value), protocol=2)))) == ascii(value)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    ],
)
def test_tensors_of_all_types_and_shapes_are_read(dtype: torch.dtype) -> None:
    tensors = [torch.ones(shape).to(dtype) for shape in ((2, 3), (), (0, 3), (1, 1, 5))]
    for found, original in zip(read(saved({"some": tensors}))["some"], tensors, strict=True):
        assert found.dtype == dtype
        assert torch.equal(found, original)


def test_a_system_without_files_in_memory_reads_tensors_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    tensor = torch.arange(5000.0)
    assert torch.equal(read(saved({"some": tensor}))["some"], tensor)


def test_torch_reads_what_the_tests_write_by_hand() -> None:
    """Otherwise the refusals below would prove nothing."""
    data = torch_file(program(EMPTY_DICT, text("a"), tensor(), SETITEM))
    assert torch.equal(torch.load(io.BytesIO(data), weights_only=True)["a"], torch.zeros(4))
    assert torch.equal(read(data)["a"], torch.zeros(4))


def test_leaves_are_yielded_in_order_with_their_paths() -> None:
    value = {"a": [1, (2,)], "b/c~d": {3: None}, "empty": {}}
    met = [(pointer(path), leaf) for path, leaf in leaves(value)]
    assert met == [("/a/0", 1), ("/a/1/0", 2), ("/b~1c~0d/3", None)]


# Other files


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "file: is empty; expected a checkpoint that `manyheads train` wrote"),
        (b"hello, I am a text", r"is not a torch file \(it begins with b'hell'\)"),
        (b"PK\x03\x04", "is damaged: it is cut; the directory at its end is missing"),
        (torch_file(program(b"N"))[:-1], "is damaged: it is cut"),
        (torch_file(program(b"N"))[:60], "is damaged: it is cut"),
        (torch_file(program(b"N")) + b"x", "is damaged: it is cut"),
    ],
    ids=["empty", "text", "the mark of a ZIP", "a byte short", "half", "a byte too long"],
)
def test_other_files_and_truncated_ones_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read(data)


def test_a_flipped_bit_in_the_pickle_is_reported_as_damage() -> None:
    data = bytearray(torch_file(program(glob("torch.FloatStorage"))))
    data[data.index(b"Float")] ^= 1
    with pytest.raises(ModelError, match=r"is damaged: .* CRC-32 for file 'archive/data\.pkl'"):
        read(bytes(data))


def test_another_zip_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    with pytest.raises(ModelError, match=r"is a zip, but not one that torch wrote"):
        read(file.getvalue())


# Files that would run code


@pytest.mark.parametrize(
    "write",
    [
        lambda value: pickle.dumps(value, protocol=2),
        lambda value: pickle.dumps(value),
        lambda value: saved(value),
        lambda value: saved(value, pickle_protocol=4),
        lambda value: saved(value, _use_new_zipfile_serialization=False),
        lambda value: torch_file(pickle.dumps(value, protocol=2)),
    ],
    ids=["pickle 2", "pickle", "torch", "torch, protocol 4", "old torch", "zip"],
)
@pytest.mark.parametrize("place", [lambda bomb: bomb, lambda bomb: {"model": [1, {"a": bomb}]}])
def test_a_pickle_bomb_is_refused_and_does_not_go_off(
    tmp_path: Path, write: Callable[[Any], bytes], place: Callable[[Any], Any]
) -> None:
    data = write(place(Bomb(tmp_path / "executed")))
    with pytest.raises(ModelError, match=r"Nothing in (the file|it) was executed"):
        read(data)
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Bomb(tmp_path / "executed")))
    assert (tmp_path / "executed").exists(), "the bomb itself is a dud"


@pytest.mark.parametrize(
    "name",
    [
        "posix.system",
        "os.system",
        "builtins.eval",
        "builtins.bytearray",
        "_codecs.encode",
        "torch.load",
        "torch._utils._rebuild_wrapper_subclass",
        "torch.storage._load_from_bytes",
        "torch.UntypedStorage",
        "collections.Counter",
    ],
)
def test_an_object_that_no_tensor_needs_is_named(name: str) -> None:
    for data in (
        torch_file(program(glob(name), long(1 << 40), TUPLE1, REDUCE)),
        torch_file(program(EMPTY_DICT, text("a"), glob(name), SETITEM)),
    ):
        with pytest.raises(ModelError, match=f"asks for the Python object '{name}'"):
            read(data)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (program(glob("torch.FloatStorage"), b")", REDUCE), "a call that is not a tensor's"),
        (program(text("f"), b")", REDUCE), "a call that is not a tensor's"),
        (
            program(glob("collections.OrderedDict"), EMPTY_LIST, TUPLE1, REDUCE),
            "a call that is not a tensor's",
        ),
        (program(EMPTY_DICT, EMPTY_DICT, BUILD), "uses the pickle opcode BUILD"),
        (b"\x80\x04N.", "a pickle of another protocol"),
        (program(b"\x8c\x01a"), "uses the pickle opcode SHORT_BINUNICODE"),
        (program(b"i", b"os\nsystem\n"), "uses the pickle opcode INST"),
        (program(glob("torch.FloatStorage")), "holds a part of a tensor at ''"),
        (program(EMPTY_LIST, storage(), APPEND), "holds a part of a tensor at '/0'"),
        (program(glob("collections.OrderedDict"), b")", REDUCE), "holds a part of a tensor"),
    ],
)
def test_objects_that_are_neither_values_nor_tensors_are_refused(body: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read(torch_file(body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x80",
        PROTO + STOP,
        PROTO + b"N",
        program(b"N", b"N"),
        program(MARK),
        program(MARK, b"a"),
        program(b"u"),
        program(b"N", b"N", SETITEM),
        program(EMPTY_DICT, EMPTY_LIST, b"N", SETITEM),
        program(EMPTY_DICT, b"\x88", b"N", SETITEM),
        program(EMPTY_DICT, MARK, text("a"), b"u"),
        program(b"h\x05"),
        program(b"q\x05"),
        program(b"X\xff\xff\xff\xffabc"),
        program(b"X\x01\x00\x00\x00\xff"),
        program(b"cno newline"),
        program(EMPTY_LIST, MARK, APPEND),
        program(TUPLE2),
        program(b"N", PERSID),
        program(tuple_of(text("storage")), PERSID),
        program(tensor(content=text("0"))),
        program(tensor(grad=b"\x88")),
        program(tensor(shape=(-4,))),
        program(tensor(shape=(2, 2), stride=(1,))),
        program(tensor(shape=(1,) * 100, stride=(1,) * 100)),
    ],
)
def test_a_garbled_pickle_is_refused(body: bytes) -> None:
    message = "makes no sense|torch cannot read it|a part or a rearr|a call that is not"
    with pytest.raises(ModelError, match=message):
        read(torch_file(body))


# Files that would take all memory


def test_a_repeated_container_is_refused_before_it_multiplies() -> None:
    laughs = program(EMPTY_LIST, b"q\x00", b"h\x00", APPEND)
    with pytest.raises(ModelError, match="refers to one container twice"):
        read(torch_file(laughs))
    tensor_twice = program(EMPTY_LIST, tensor(), b"q\x00", APPEND, b"h\x00", APPEND)
    with pytest.raises(ModelError, match="refers to one container twice"):
        read(torch_file(tensor_twice))


@pytest.mark.parametrize(
    "key",
    [
        b"N" + TUPLE1 * 100_000,  # hashed, it overflows the stack
        tuple_of(b"N", b"N"),
        long((1 << 61) - 1),  # and its multiples collide
        EMPTY_LIST,
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_keys_that_take_forever_to_hash_are_refused(key: bytes, many: bool) -> None:
    items = MARK + key + b"Nu" if many else key + b"N" + SETITEM
    with pytest.raises(ModelError, match="makes no sense"):
        read(torch_file(program(EMPTY_DICT, items)))


def test_records_and_tensors_that_claim_more_bytes_than_the_file_has_are_refused() -> None:
    data = bytearray(torch_file(program(b"N")))
    for at in (20, 24):
        entry = data.rindex(b"PK\x01\x02") + at
        data[entry : entry + 4] = struct.pack("<I", 1 << 31)
    with pytest.raises(ModelError, match=r"claims \d+ bytes of records in"):
        read(bytes(data))
    records = {f"data/{i}": bytes(4) for i in range(200)}
    tensors = [tensor(storage(key=str(i), count=999), shape=(999,)) + APPEND for i in range(99)]
    with pytest.raises(ModelError, match="claims 395604 bytes of tensors in"):
        read(torch_file(program(EMPTY_LIST, *tensors), records))


def test_empty_tensors_by_the_thousand_are_read() -> None:
    empty = tensor(storage(count=0), shape=(0,)) + APPEND
    assert len(read(torch_file(program(EMPTY_LIST, empty * 5000), {}))) == 5000


@pytest.mark.parametrize(
    "body",
    [
        program(b"N", TUPLE1 * (MAX_DEPTH + 2)),
        program(EMPTY_LIST * 100_000, APPEND * 99_999),
        program(b"N", TUPLE1 * 100_000),
    ],
)
def test_deep_nesting_is_refused(body: bytes) -> None:
    with pytest.raises(ModelError, match=f"is nested more than {MAX_DEPTH} levels deep"):
        read(torch_file(body))


def test_endless_programs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyheads.storage.torch_file.MAX_OPCODES", 1000)
    with pytest.raises(ModelError, match="in more than 1000 steps"):
        read(torch_file(program(EMPTY_LIST, (b"N" + APPEND) * 1000)))
    monkeypatch.setattr("manyheads.storage.torch_file.MAX_PICKLE_BYTES", 100)
    with pytest.raises(ModelError, match="describes its contents in 1000 bytes"):
        read(torch_file(bytes(1000)))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (program(tensor(storage(count=1 << 30), shape=(1 << 30,))), "torch cannot read it"),
        (program(tensor(storage(count=-4), shape=(4,))), "torch cannot read it"),
        (program(tensor(storage(key="7"))), "torch cannot read it .*data/7: file not found"),
        (program(tensor(shape=(1 << 60,), stride=(0,))), "a part or a rearrangement"),
        (
            program(tensor(shape=(1 << 62, 1 << 62), stride=(0, 0))),
            "torch cannot read it .*overflow",
        ),
        (program(tensor(shape=(2,))), "a part or a rearrangement"),
        (program(tensor(offset=1)), "torch cannot read it"),
        (program(tensor(shape=(2,), offset=2)), "a part or a rearrangement"),
        (program(tensor(shape=(2, 2), stride=(1, 2))), "a part or a rearrangement"),
    ],
)
def test_a_tensor_that_does_not_match_its_record_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read(torch_file(body))


def test_compressed_and_encrypted_records_are_refused() -> None:
    for bomb in (
        torch_file(program(b"N"), {"data/0": bytes(1 << 24)}, compression=zipfile.ZIP_DEFLATED),
        torch_file(bytes(1 << 24), compression=zipfile.ZIP_DEFLATED),
        torch_file(program(b"N"), {"byteorder": bytes(1 << 24)}, compression=zipfile.ZIP_DEFLATED),
    ):
        assert len(bomb) < 1 << 16
        with pytest.raises(ModelError, match="is compressed or encrypted"):
            read(bomb)
    data = bytearray(torch_file(program(b"N")))
    entry = data.index(b"PK\x01\x02")
    data[entry + 8] |= 1
    with pytest.raises(ModelError, match="is compressed or encrypted"):
        read(bytes(data))


def test_a_directory_too_large_to_read_is_refused_unread() -> None:
    data = bytearray(torch_file(program(b"N")))
    data[-14:-10] = struct.pack("<2H", MAX_RECORDS + 1 & 0xFFFF, 0xFFFF)
    length, offset = struct.unpack("<2I", data[-10:-2])
    padded = data[:-22] + bytes(MAX_RECORDS * 200) + data[-22:]
    padded[-10:-2] = struct.pack("<2I", length + MAX_RECORDS * 200, offset)
    with pytest.raises(ModelError, match="has a directory of 65535 records"):
        read(bytes(padded))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        ("local name", b"X", "File name in directory 'archive/data.pkl' and header .* differ"),
        ("local extra length", b"\xff", "Bad CRC-32 for file 'archive/data.pkl'"),
        ("entry size", b"\xff", "its record 'archive/data.pkl' has two sizes"),
        ("entry signature", b"X", "Bad magic number for central directory"),
        ("entry offset", b"\xff", "Truncated file header"),
        ("end offset", b"\xff", "the directory at its end is not at the stated place"),
    ],
)
def test_a_directory_that_contradicts_the_file_is_refused(
    at: str, value: bytes, message: str
) -> None:
    data = bytearray(torch_file(program(b"N")))
    entry = data.index(b"PK\x01\x02")
    place = {
        "local name": 30,
        "local extra length": 28,
        "entry size": entry + 24,
        "entry signature": entry + 3,
        "entry offset": entry + 43,
        "end offset": len(data) - 6,
    }[at]
    data[place : place + 1] = value
    with pytest.raises(ModelError, match=message):
        read(bytes(data))


def test_two_records_of_one_name_are_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = torch_file(program(b"N"), {"data.pkl": program(b"\x88")})
    with pytest.raises(ModelError, match="has two records of one name"):
        read(data)


@given(st.data())
@settings(max_examples=150)
def test_garbled_files_are_refused_with_one_kind_of_error(data: st.DataObject) -> None:
    original = bytearray(HONEST)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(original) - 1))
        original[place] = data.draw(st.integers(0, 255))
    try:
        read(bytes(original))
    except ModelError as error:
        assert str(error).startswith("file: ")  # noqa: PT017


@given(
    st.lists(st.sampled_from([bytes([code]) for code in b"\x80\x02}])(N\x88KJXqht\x85aesucQR."]))
)
@settings(max_examples=150)
def test_any_opcodes_are_followed_or_refused(opcodes: list[bytes]) -> None:
    try:
        check_pickle(PROTO + b"".join(opcodes) + STOP, "file")
    except ModelError as error:
        assert str(error).startswith("file: ")  # noqa: PT017


HONEST = saved({"a": torch.arange(4.0), "b": [1, "two", (3.0, None, True)], "c": {4: 5}})
