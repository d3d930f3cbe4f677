"""The nested values that a checkpoint holds: made plain, and summed up for the check on loading."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from manyheads.errors import shorten
from manyheads.storage import MAX_DEPTH, KeyPath, describe_tensor, pointer, sha256

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
# The whole numbers that torch's restricted reader can read have at most 255 bytes.
_MAX_INT_BITS = 2000


def plain(value: Any, path: KeyPath = ()) -> Any:
    """Copy nested containers into plain ones of plain values and whole CPU tensors.

    Tensors share the memory of the given ones, except those on another device and parts of larger
    ones.

    Args:
        value: mappings (keys: text and whole numbers), lists and tuples of tensors, text, numbers,
            truth values and None.
        path: where `value` is in the whole.

    Raises:
        TypeError, ValueError: something in them cannot be in a checkpoint.
    """
    if len(path) > MAX_DEPTH:
        raise ValueError(f"{pointer(path)[:200]} is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Tensor):
        return _whole(value, path)
    if isinstance(value, Mapping):
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"key {key!r} of {pointer(path)} is neither text nor an integer")
        return {key: plain(inner, (*path, key)) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(inner, (*path, i)) for i, inner in enumerate(value))
    if value is None or type(value) in (str, bool):
        return value
    if isinstance(value, float):
        return float(value)  # numpy's is a subclass, and reads as the number it is
    if type(value) is int and value.bit_length() <= _MAX_INT_BITS:
        return value
    raise TypeError(
        f"{pointer(path)} is a {type(value).__name__} ({shorten(value)}), which a checkpoint "
        "cannot hold"
    )


def digest_of_values(tree: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all but the tensors' elements, whose types and shapes count.

    `ascii` writes every accepted value so that equal texts mean equal values, in each version of
    Python, and a `TensorClaim` as the tensor it stands for.
    """
    return sha256(ascii(_with_claims(tree)).encode("ascii"))


def _with_claims(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_claims(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_with_claims(inner) for inner in value)
    if isinstance(value, Tensor):
        return _Described(describe_tensor(_DTYPES[value.dtype], tuple(value.shape)))
    return value


@dataclass(frozen=True, slots=True)
class _Described:
    text: str

    def __repr__(self) -> str:
        return self.text


def digest_of_tensor(tensor: Tensor) -> str:
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
