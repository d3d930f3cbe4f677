"""Follow a torch file's pickle as data, so that nothing in it can do anything.

A pickle is a program. `torch.load(weights_only=True)` runs a harmless subset of that language, but
one that can still ask for memory without end, and a file that holds anything else fails there late
and in torch's words. So the opcodes are walked here first: nothing is called or looked up, and
only plain values and whole tensors whose sizes the file bears out are accepted.

Formats: the opcodes of protocol 2, as Python's `pickletools` documents them; the description of a
tensor, as `torch.serialization` and `torch._utils` write it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from manyheads.errors import ModelError, shorten

MAX_OPCODES = 2_000_000
MAX_DEPTH = 64

KeyPath = tuple[str | int, ...]
"""The keys and positions that lead to a value in nested containers."""
PLAIN = str | int | float | bool | None

# torch's name of a storage -> dtype and bytes of an element
STORAGES = {
    "torch.FloatStorage": ("float32", 4),
    "torch.DoubleStorage": ("float64", 8),
    "torch.HalfStorage": ("float16", 2),
    "torch.BFloat16Storage": ("bfloat16", 2),
    "torch.LongStorage": ("int64", 8),
    "torch.IntStorage": ("int32", 4),
    "torch.ShortStorage": ("int16", 2),
    "torch.CharStorage": ("int8", 1),
    "torch.ByteStorage": ("uint8", 1),
    "torch.BoolStorage": ("bool", 1),
}
_WIDTHS = dict(STORAGES.values())
_REBUILD = "torch._utils._rebuild_tensor_v2"
_ORDERED_DICT = "collections.OrderedDict"
_GLOBALS = frozenset({_REBUILD, _ORDERED_DICT, *STORAGES})


@dataclass(frozen=True, slots=True)
class Record:
    """Where a file within the zip lies in it."""

    offset: int
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class TensorClaim:
    """A tensor as the file describes it, and where its bytes lie."""

    dtype: str
    shape: tuple[int, ...]
    record: Record

    def __repr__(self) -> str:
        return describe_tensor(self.dtype, self.shape)


def describe_tensor(dtype: str, shape: tuple[int, ...]) -> str:
    """Write a tensor's type in one form, wherever it comes from."""
    return f"<{dtype} {list(shape)}>"


def walk_pickle(program: bytes, records: Mapping[str, Record], where: str) -> Any:
    """Read the value that a pickle describes, with a `TensorClaim` in place of each tensor.

    Args:
        program: the pickle.
        records: the files beside it, by name.
        where: what to call the whole in an error.

    Returns:
        Nested dictionaries (keys: text and whole numbers), lists and tuples of `PLAIN` values
        and `TensorClaim`s, in which no container occurs twice.

    Raises:
        ModelError: it describes, or asks for, anything else.
    """
    value = _Walker(program, records, where).run()
    for path, leaf in leaves(value):
        if len(path) > MAX_DEPTH:
            raise hostile(f"is nested more than {MAX_DEPTH} levels deep", where)
        if not isinstance(leaf, PLAIN | TensorClaim):
            raise hostile(f"holds a part of a tensor at {shorten(pointer(path))}", where)
    return value


def leaves(value: Any) -> Iterator[tuple[KeyPath, Any]]:
    """Yield everything in nested containers that is not one, with its path, in order.

    A container deeper than `MAX_DEPTH` is yielded as if it were not one.
    """
    todo: list[tuple[KeyPath, Any]] = [((), value)]
    while todo:
        path, item = todo.pop()
        if not isinstance(item, dict | list | tuple) or len(path) > MAX_DEPTH:
            yield path, item
            continue
        inner = list(item.items() if isinstance(item, dict) else enumerate(item))
        todo.extend(((*path, key), child) for key, child in reversed(inner))


def pointer(path: KeyPath) -> str:
    """Write a path as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in path)


def damaged(found: str, where: str) -> ModelError:
    """Say that a file is not as it was written."""
    return ModelError(
        f"is damaged: {found}",
        expected="the bytes that were written",
        fix="Use another checkpoint, or restore this one from a copy.",
        where=where,
    )


def hostile(found: str, where: str) -> ModelError:
    """Say that a file holds what a checkpoint never does."""
    return ModelError(
        found,
        expected="tensors, text and numbers only, as `manyheads train` writes them",
        fix="Do not use this file unless you know what it is. Nothing in it was executed.",
        where=where,
    )


class _Mark:
    """The opcode MARK on the stack: where the items of a container begin."""


@dataclass(frozen=True, slots=True)
class _Global:
    """A name that the pickle asks for, never looked up."""

    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """A record that a tensor is made of, with the type of its elements."""

    dtype: str
    record: Record


class _NoHooks:
    """The empty `OrderedDict()` that comes with each tensor."""


class _Walker:
    """A pickle's opcodes followed as data: each does to a stack what it says, or is refused."""

    def __init__(self, program: bytes, records: Mapping[str, Record], where: str) -> None:
        self.program, self.records, self.where = program, records, where
        self.position = 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return the value that the program describes."""
        try:
            for _ in range(MAX_OPCODES):
                opcode = self._take(1)
                if opcode == b".":
                    value = self._pop()
                    if self.stack:
                        raise ValueError("more than one value")
                    return value
                handler = _HANDLERS.get(opcode)
                if handler is None:
                    raise self._refused(f"uses the pickle opcode {opcode!r}")
                handler(self)
        except (ValueError, IndexError, KeyError, TypeError, struct.error):
            raise self._refused("describes its contents in a way that makes no sense") from None
        raise self._refused(f"describes its contents in more than {MAX_OPCODES} steps")

    def _refused(self, found: str) -> ModelError:
        return hostile(found, self.where)

    def _take(self, count: int) -> bytes:
        taken = self.program[self.position : self.position + count]
        if len(taken) != count:
            raise ValueError("the program ends early")
        self.position += count
        return taken

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self.program.index(b"\n", self.position)
        line = self.program[self.position : end].decode("utf-8")
        self.position = end + 1
        return line

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    def _pop(self) -> Any:
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise ValueError("a mark where a value is needed")
        return value

    def _pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(item := self.stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def protocol(self) -> None:
        """Accept the protocol that torch writes."""
        if self._take(1) != b"\x02":
            raise self._refused("is a pickle of another protocol than torch's")

    def text(self) -> None:
        self._push(self._take(self._number("<I")).decode("utf-8", "surrogatepass"))

    def long(self) -> None:
        self._push(int.from_bytes(self._take(self._number("<B")), "little", signed=True))

    def remember(self, form: str) -> None:
        self.memo[self._number(form)] = self.stack[-1]

    def recall(self, form: str) -> None:
        value = self.memo[self._number(form)]
        # A container met twice could contain itself, or a billion copies of itself.
        if not isinstance(value, str | _Global) and value != ():
            raise self._refused("refers to one container twice")
        self._push(value)

    def tuple_of(self, count: int | None) -> None:
        items = self._pop_to_mark() if count is None else [self._pop() for _ in range(count)][::-1]
        self._push(tuple(items))

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise TypeError
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict:
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int) or key in target:
                raise TypeError
            target[key] = value

    def global_name(self) -> None:
        """Accept the few names that tensors need; name any other that is asked for."""
        module, name = self._line(), self._line()
        full = f"{module}.{name}"
        if full not in _GLOBALS:
            raise self._refused(f"asks for the Python object {shorten(full)}")
        self._push(_Global(full))

    def storage(self) -> None:
        """Accept `("storage", type, record, "cpu", elements)` if the record has that size."""
        kind, storage, key, location, count = self._pop()
        if kind != "storage" or not isinstance(key, str) or location != "cpu":
            raise ValueError
        dtype, width = STORAGES[storage.name]
        record = self.records.get(f"data/{key}")
        if record is None:
            raise damaged(f"its record data/{key} is missing", self.where)
        if type(count) is not int or record.size != count * width:
            raise damaged(
                f"its record data/{key} has {record.size} bytes where {count} elements of "
                f"{dtype} should be",
                self.where,
            )
        self._push(_Storage(dtype, record))

    def call(self) -> None:
        """Accept the two calls that a tensor is made of, as descriptions."""
        arguments, function = self._pop(), self._pop()
        name = function.name if isinstance(function, _Global) else None
        if name == _ORDERED_DICT and arguments == ():
            self._push(_NoHooks())
        elif name == _REBUILD:
            self._push(self._tensor(*arguments))
        else:
            raise self._refused("describes a call that is not a tensor's")

    def _tensor(
        self,
        storage: _Storage,
        offset: int,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
        requires_grad: bool,
        hooks: _NoHooks,
    ) -> TensorClaim:
        if not isinstance(storage, _Storage) or not isinstance(hooks, _NoHooks):
            raise TypeError
        if requires_grad is not False or not len(shape) == len(stride) <= MAX_DEPTH:
            raise TypeError
        if any(type(n) is not int or not 0 <= n < 1 << 63 for n in (*shape, *stride)):
            raise TypeError
        contiguous = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        elements = math.prod(shape)
        whole = elements * _WIDTHS[storage.dtype] == storage.record.size
        in_order = elements == 0 or all(
            size == 1 or step == wanted
            for size, step, wanted in zip(shape, stride, contiguous, strict=True)
        )
        if offset != 0 or not whole or not in_order:
            raise self._refused("holds a tensor that is a part or a rearrangement of its record")
        return TensorClaim(storage.dtype, shape, storage.record)


_HANDLERS: dict[bytes, Callable[[_Walker], None]] = {
    b"\x80": _Walker.protocol,
    b"}": lambda w: w._push({}),
    b"]": lambda w: w._push([]),
    b")": lambda w: w._push(()),
    b"(": lambda w: w._push(_Mark()),
    b"N": lambda w: w._push(None),
    b"\x88": lambda w: w._push(True),
    b"\x89": lambda w: w._push(False),
    b"K": lambda w: w._push(w._number("<B")),
    b"M": lambda w: w._push(w._number("<H")),
    b"J": lambda w: w._push(w._number("<i")),
    b"G": lambda w: w._push(w._number(">d")),
    b"\x8a": _Walker.long,
    b"X": _Walker.text,
    b"q": lambda w: w.remember("<B"),
    b"r": lambda w: w.remember("<I"),
    b"h": lambda w: w.recall("<B"),
    b"j": lambda w: w.recall("<I"),
    b"t": lambda w: w.tuple_of(None),
    b"\x85": lambda w: w.tuple_of(1),
    b"\x86": lambda w: w.tuple_of(2),
    b"\x87": lambda w: w.tuple_of(3),
    b"a": lambda w: w.append([w._pop()]),
    b"e": lambda w: w.append(w._pop_to_mark()),
    b"s": lambda w: w.set_items([w._pop(), w._pop()][::-1]),
    b"u": lambda w: w.set_items(w._pop_to_mark()),
    b"c": _Walker.global_name,
    b"Q": _Walker.storage,
    b"R": _Walker.call,
}
