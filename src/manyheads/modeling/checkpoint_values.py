"""The nested values of a checkpoint: conversion to plain values, checks and digests."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

from manyheads.errors import shorten
from manyheads.storage import check_torch_file, damaged, hostile, private_copy, sha256

MAX_DEPTH = 64
KeyPath = tuple[str | int, ...]
"""The keys and positions that lead to a value in nested containers."""

_DTYPES = {
    dtype: str(dtype).removeprefix("torch.")
    for dtype in (
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
    )
}
# The whole numbers that torch's restricted reader can read have at most 255 bytes. Those that are
# keys are smaller: larger ones can be made to collide (`manyheads.storage.torch_file`).
_MAX_INT_BITS = 2000
_MAX_KEY_BITS = 31


def leaves(value: Any) -> Iterator[tuple[KeyPath, Any]]:
    """Yield everything in nested containers that is not one, with its path, in order.

    A container deeper than `MAX_DEPTH` is yielded like a value.
    """
    todo: list[tuple[KeyPath, Any]] = [((), value)]
    while todo:
        path, item = todo.pop()
        if type(item) not in (dict, list, tuple) or len(path) > MAX_DEPTH:
            yield path, item
            continue
        inner = list(item.items() if isinstance(item, dict) else enumerate(item))
        todo.extend(((*path, key), child) for key, child in reversed(inner))


def replaced(value: Any, replace: Callable[[KeyPath, Tensor], Any], path: KeyPath = ()) -> Any:
    """Copy nested containers with each tensor replaced."""
    if isinstance(value, dict):
        return {key: replaced(inner, replace, (*path, key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(replaced(inner, replace, (*path, i)) for i, inner in enumerate(value))
    return replace(path, value) if isinstance(value, Tensor) else value


def pointer(path: KeyPath) -> str:
    """Write a path as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in path)


def read_torch_file(file: BinaryIO, where: str, *, tensors: bool = True) -> Any:
    """Read the value in a torch file.

    The file is copied to memory. The tensors are views of the copy, and any of them keeps it alive.

    Args:
        file: the open file.
        where: its place, for errors.
        tensors: whether to read the tensors; if not, the elements of all but small ones are zero.

    Returns:
        Nested dictionaries, lists and tuples of whole tensors, text, numbers, truth values and
        None.

    Raises:
        ModelError: it is not a torch file, is damaged, or holds other values.
    """
    with private_copy(file, where, tensors=tensors) as copy:
        check_torch_file(copy, where)
        size, claimed = os.fstat(copy.fileno()).st_size, {}
        try:
            value = torch.load(
                f"/dev/fd/{copy.fileno()}", map_location="cpu", weights_only=True, mmap=True
            )
        except OSError:
            raise
        except Exception as error:  # torch has no one class for what it cannot read
            raise damaged(f"torch cannot read it ({shorten(str(error), 200)})", where) from None
    for path, leaf in leaves(value):
        if len(path) > MAX_DEPTH:
            raise hostile(f"is nested more than {MAX_DEPTH} levels deep", where)
        if type(leaf) is Tensor:
            if not _is_whole(leaf):
                part = "holds a tensor that is a part or a rearrangement of its record"
                raise hostile(f"{part} at {shorten(pointer(path))}", where)
            claimed[leaf.data_ptr(), leaf.nbytes] = leaf.nbytes  # once for tied tensors
        elif leaf is not None and type(leaf) not in (str, int, float, bool):
            raise hostile(f"holds a part of a tensor at {shorten(pointer(path))}", where)
    if sum(claimed.values()) > size:
        raise hostile(f"claims {sum(claimed.values())} bytes of tensors in {size}", where)
    return value


def _is_whole(tensor: Tensor) -> bool:
    return (
        tensor.dtype in _DTYPES
        and tensor.is_contiguous()
        and not tensor.requires_grad
        and tensor.untyped_storage().nbytes() == tensor.nbytes
    )


def plain(value: Any, path: KeyPath = ()) -> Any:
    """Copy nested containers into plain ones of plain values and whole CPU tensors.

    CPU tensors share the memory of the originals, except parts of larger tensors.

    Args:
        value: mappings (keys: text and whole numbers), lists and tuples of tensors, text, numbers,
            truth values and None.
        path: the path to `value`.

    Raises:
        TypeError, ValueError: a checkpoint cannot hold one of these values.
    """
    if len(path) > MAX_DEPTH:
        raise ValueError(f"{pointer(path)[:200]} is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Tensor):
        return _whole(value, path)
    if isinstance(value, Mapping):
        for key in value:
            small = type(key) is int and key.bit_length() <= _MAX_KEY_BITS
            if type(key) is not str and not small:
                raise TypeError(
                    f"key {key!r} of {pointer(path)} is neither text nor an integer of 32 bits"
                )
        return {key: plain(inner, (*path, key)) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(inner, (*path, i)) for i, inner in enumerate(value))
    if value is None or type(value) in (str, bool):
        return value
    if isinstance(value, float):
        return float(value)  # numpy's float64 is a subclass of float
    if type(value) is int and value.bit_length() <= _MAX_INT_BITS:
        return value
    raise TypeError(
        f"{pointer(path)} is a {type(value).__name__} ({shorten(value)}), which a checkpoint "
        "cannot hold"
    )


def digest_of_values(tree: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a document, with types and shapes in place of its tensors.

    `ascii` writes every accepted value so that equal text means equal values in every version of
    Python.
    """
    described = replaced(
        tree,
        lambda _, tensor: _Described(f"<{_DTYPES[tensor.dtype]} {list(tensor.shape)}>"),
    )
    return sha256(ascii(described).encode("ascii"))


@dataclass(frozen=True, slots=True)
class _Described:
    text: str

    def __repr__(self) -> str:
        return self.text


def digest_of_tensor(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's elements, in hexadecimal."""
    return hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def _whole(tensor: Tensor, path: KeyPath) -> Tensor:
    if tensor.dtype not in _DTYPES or tensor.layout is not torch.strided:
        raise TypeError(
            f"{pointer(path)} is a {tensor.dtype}, {tensor.layout} tensor, which a checkpoint "
            "cannot hold"
        )
    tensor = tensor.detach().to("cpu").contiguous()
    if tensor.untyped_storage().nbytes() != math.prod(tensor.shape) * tensor.element_size():
        tensor = tensor.clone()
    return tensor
