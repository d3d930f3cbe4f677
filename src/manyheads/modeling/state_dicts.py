"""Load parameters into a module strictly: all of them, and nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from manyheads.errors import ModelError, listing


def load_state(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Copy parameters and buffers into a module, strictly.

    Nothing is copied unless all of them fit.

    Args:
        module: receives them.
        state: the tensors by the module's names.
        where: the file they come from, for errors.

    Raises:
        ModelError: a parameter is missing, unexpected, or of another shape or type; all are
            named.
    """
    check_state(module, state, where)
    module.load_state_dict(dict(state))


def check_state(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Check that parameters and buffers fit a module (raises as `load_state` does).

    The module may be on torch's device `meta`, where tensors have shapes and take no memory.
    """
    wanted = module.state_dict()
    problems = []
    if missing := [name for name in wanted if name not in state]:
        problems.append(f"lacks {listing(missing)}")
    if unexpected := [name for name in state if name not in wanted]:
        problems.append(f"has the unexpected {listing(unexpected)}")
    if misfits := [
        f"{name} {_described(state[name])} for {_described(tensor)}"
        for name, tensor in wanted.items()
        if name in state and not _fits(state[name], tensor)
    ]:
        problems.append(f"has {listing(misfits)}")
    if problems:
        raise ModelError(
            f"does not have the parameters of this model: it {'; it '.join(problems)}",
            expected="the parameters that the model's configuration and tasks ask for",
            fix="It is another model's, or of another version; train or copy the model again.",
            where=where,
        )


def _fits(given: Tensor, wanted: Tensor) -> bool:
    same_kind = given.is_floating_point() == wanted.is_floating_point()
    return given.shape == wanted.shape and (given.dtype == wanted.dtype or same_kind)


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def fingerprint(state: Mapping[str, Tensor]) -> int:
    """Return a checksum of parameters, for comparing them between processes."""
    total = 0
    for name in sorted(state):
        values = state[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        total = zlib.crc32(values.data, zlib.crc32(name.encode(), total))
    return total
