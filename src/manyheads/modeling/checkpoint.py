"""Checkpoints: one file with everything needed to resume a run or to use its model.

A checkpoint is a torch file that holds only tensors, text and numbers. Its structure is checked
before torch reads it, and the SHA-256 of everything read is checked afterwards. A file that is
truncated, damaged, hostile or not a checkpoint is refused by name, and so is a damaged tensor.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from manyheads.errors import ManyheadsError, ModelError, shorten
from manyheads.modeling.checkpoint_values import (
    KeyPath,
    digest_of_tensor,
    digest_of_values,
    leaves,
    plain,
    pointer,
    read_torch_file,
    replaced,
)
from manyheads.storage import (
    DenseLayer,
    EncoderFiles,
    Fields,
    Reading,
    StrPath,
    atomic_file,
    check_code,
    check_format_version,
    damaged,
    explained,
    known_pooling,
    open_regular,
)
from manyheads.storage.locate import CheckpointFile, list_checkpoints
from manyheads.version import __version__

FORMAT = "manyheads checkpoint"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class CheckpointContents:
    """The contents of a checkpoint."""

    config: Mapping[str, Any]
    """The run's configuration, as JSON values."""
    tasks: Sequence[Mapping[str, Any]]
    """Each task as `TaskSpec.to_json` writes it."""
    encoder: EncoderFiles
    model: Mapping[str, Tensor] = field(repr=False)
    """The parameters of encoder and heads, by the names that the model gives them."""
    training: Mapping[str, Any] = field(repr=False)
    """The state needed to resume the run: nested dictionaries, lists and tuples of tensors, text,
    numbers, truth values and None."""
    epoch: int
    """The number of finished epochs."""
    step: int
    """The number of optimiser steps in the whole run."""
    manyheads_version: str = __version__


class Position(NamedTuple):
    """A run's progress at a checkpoint; later positions compare greater."""

    step: int
    is_epoch: bool
    epoch: int


@dataclass(frozen=True, slots=True)
class Intact:
    """A checkpoint that was read and verified."""

    path: Path
    contents: CheckpointContents


@dataclass(frozen=True, slots=True)
class Refused:
    """A checkpoint that could not be used, and why."""

    path: Path
    error: ManyheadsError


def save_checkpoint(path: StrPath, contents: CheckpointContents) -> None:
    """Write a checkpoint completely or not at all.

    Tensors on the CPU are written without a copy, unless they are parts of larger ones.

    Raises:
        StorageError: it could not be written; an earlier file of that name is unchanged.
        TypeError, ValueError: a checkpoint cannot hold a part of the contents; the error names its
            path.
    """
    tree = plain(_document(contents))
    tensors = {pointer(path): leaf for path, leaf in leaves(tree) if isinstance(leaf, Tensor)}
    manifest = {
        "values": digest_of_values(tree),
        "tensors": {name: digest_of_tensor(tensor) for name, tensor in tensors.items()},
    }
    with atomic_file(path) as file:
        torch.save({**tree, "manifest": manifest}, file)


def load_checkpoint(path: StrPath) -> CheckpointContents:
    """Read and verify a checkpoint. Its tensors are on the CPU.

    Raises:
        ModelError: it is not a checkpoint, or is truncated, damaged, hostile or of a newer format.
            Nothing in it is executed in any case.
        StorageError: it cannot be read.
    """
    where = os.fspath(path)
    with open_regular(path) as file:
        document = _verified(_read_document(file, where), where)
    return _contents(document, where)


def read_position(path: StrPath) -> Position:
    """Read a run's progress at a checkpoint, without reading its tensors.

    Raises:
        ModelError: it is not a checkpoint, or is damaged, hostile or of a newer format.
        StorageError: it cannot be read.
    """
    with open_regular(path) as file:
        document = _read_document(file, os.fspath(path), tensors=False)
    fields = Fields(document, os.fspath(path), "Use another.")
    named = CheckpointFile.named(Path(path))
    is_epoch = named is None or named.is_epoch
    return Position(fields.get("step", int), is_epoch, fields.get("epoch", int))


def newest_intact(save_dir: StrPath) -> tuple[Intact | None, tuple[Refused, ...]]:
    """Find the checkpoint from which a run continues.

    Returns:
        The intact checkpoint that is furthest in the run, if there is one, and the refused ones
        that are, or may be, further.
    """
    known, refused = _positions(list_checkpoints(save_dir))
    for _, path in sorted(known, reverse=True):
        try:
            return Intact(path, load_checkpoint(path)), tuple(refused)
        except ManyheadsError as error:
            refused.append(Refused(path, error))
    return None, tuple(refused)


def prune(save_dir: StrPath, keep: int | None) -> tuple[Path, ...]:
    """Remove checkpoints that newer ones replace.

    Of the checkpoints within epochs, only the newest is kept, and only until its epoch ends. Files
    that cannot be read are neither counted nor removed.

    Args:
        save_dir: the folder.
        keep: how many epoch checkpoints to keep, at least 1; None keeps all.

    Returns:
        The removed files.

    Raises:
        StorageError: one could not be removed.
    """
    if keep is not None and keep < 1:
        raise ValueError(f"keep is {keep}; it must be at least 1")
    files = list_checkpoints(save_dir)
    if all(file.is_epoch for file in files) and len(files) <= (keep or len(files)):
        return ()  # without reading them
    within, _ = _positions(file for file in files if not file.is_epoch)
    # From the newest on, read as far as needed: positions rise with the number of the epoch.
    epochs = (known for file in reversed(files) if file.is_epoch for known in _positions([file])[0])
    kept = list(islice(epochs, keep or 1))
    superfluous = [] if keep is None else [path for _, path in epochs]
    newest = max([*within, *kept], default=None)
    superfluous += [path for position, path in within if (position, path) != newest]
    for path in superfluous:
        with explained(path, "removed"):
            path.unlink(missing_ok=True)
    return tuple(superfluous)


def remove_checkpoints(save_dir: StrPath) -> tuple[Path, ...]:
    """Remove every checkpoint in a folder, for a run that starts afresh there.

    Raises:
        StorageError: one could not be removed.
    """
    files = list_checkpoints(save_dir)
    for file in files:
        with explained(file.path, "removed"):
            file.path.unlink(missing_ok=True)
    return tuple(file.path for file in files)


def _positions(
    files: Iterable[CheckpointFile],
) -> tuple[list[tuple[Position, Path]], list[Refused]]:
    """Read the positions of checkpoints, and which cannot be read."""
    known: list[tuple[Position, Path]] = []
    refused: list[Refused] = []
    for file in files:
        try:
            known.append((read_position(file.path), file.path))
        except ManyheadsError as error:
            refused.append(Refused(file.path, error))
    return known, refused


def _document(contents: CheckpointContents) -> dict[str, Any]:
    encoder = contents.encoder
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "manyheads_version": contents.manyheads_version,
        "epoch": contents.epoch,
        "step": contents.step,
        "config": contents.config,
        "tasks": list(contents.tasks),
        "encoder": {
            "config": encoder.config,
            "files": {name: data.decode("utf-8") for name, data in encoder.files.items()},
            "pooling": encoder.pooling,
            "normalize": encoder.normalize,
            "max_length": encoder.max_length,
            "hidden_size": encoder.hidden_size,
            "reading": encoder.reading.to_json(),
            "dense": [
                {
                    "settings": layer.settings(),
                    "weights": torch.frombuffer(bytearray(layer.weights), dtype=torch.uint8),
                }
                for layer in encoder.dense
            ],
        },
        "model": contents.model,
        "training": contents.training,
    }


def _contents(document: Mapping[str, Any], where: str) -> CheckpointContents:
    """Turn a verified document into contents, with all types checked."""
    fields = Fields(document, where, "Use another checkpoint.")
    encoder = fields.inner("encoder")
    files = encoder.inner("files")
    model = fields.get("model", dict)
    for name, tensor in model.items():
        if type(name) is not str or not isinstance(tensor, Tensor):
            fields.refuse("model", {name: tensor})
    pooling = encoder.get("pooling", str)
    if not known_pooling(pooling):
        encoder.refuse("pooling", pooling)
    encoder_files = EncoderFiles(
        config=encoder.get("config", dict),
        files={
            name: files.get(name, str).encode("utf-8", "surrogatepass") for name in files.values
        },
        pooling=pooling,
        normalize=encoder.get("normalize", bool),
        max_length=encoder.get("max_length", int),
        hidden_size=encoder.get("hidden_size", int),
        dense=_dense(encoder),
        reading=Reading.of_encoder(encoder),
    )
    check_code(encoder_files.config, encoder_files.files, where)
    return CheckpointContents(
        config=fields.get("config", dict),
        tasks=fields.objects("tasks"),
        encoder=encoder_files,
        model=model,
        training=fields.get("training", dict),
        epoch=fields.get("epoch", int),
        step=fields.get("step", int),
        manyheads_version=fields.get("manyheads_version", str),
    )


def _dense(encoder: Fields) -> tuple[DenseLayer, ...]:
    layers = []
    # Version 0.1 wrote none.
    for layer in encoder.objects("dense") if encoder.values.get("dense") else ():
        fields = Fields(layer, encoder.where, encoder.fix, "encoder.dense.")
        weights = layer.get("weights")
        if not isinstance(weights, Tensor) or weights.dtype != torch.uint8 or weights.dim() != 1:
            fields.refuse("weights", weights)
        layers.append(DenseLayer.from_settings(fields.inner("settings"), weights.numpy().tobytes()))
    return tuple(layers)


def _read_document(file: BinaryIO, where: str, *, tensors: bool = True) -> dict[str, Any]:
    """Read a checkpoint, and verify all but the bytes of its tensors."""
    document = read_torch_file(file, where, tensors=tensors)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelError(
            "is a torch file, but not a checkpoint of Manyheads",
            expected="a checkpoint that `manyheads train` wrote",
            fix="Correct the path.",
            where=where,
        )
    version = document.get("format_version")
    check_format_version(
        version, {"manyheads": document.get("manyheads_version")}, where, FORMAT_VERSION
    )
    manifest = document.pop("manifest", None)
    if not isinstance(manifest, dict) or manifest.get("values") != digest_of_values(document):
        raise damaged("the checksum of its values is wrong", where)
    document["manifest"] = manifest
    return document


def _verified(document: dict[str, Any], where: str) -> dict[str, Any]:
    """Verify the tensors of a document, each copied out of the copy of the file."""
    digests = document["manifest"].get("tensors")
    copies: dict[tuple[int, int], Tensor] = {}  # by storage, so that tied tensors stay tied

    def copied(path: KeyPath, mapped: Tensor) -> Tensor:
        storage = mapped.data_ptr(), mapped.nbytes
        if storage not in copies:
            copies[storage] = mapped.reshape(-1).view(torch.uint8).clone()
        tensor = copies[storage].view(mapped.dtype).reshape(mapped.shape)
        name = pointer(path)
        if not isinstance(digests, dict) or digests.get(name) != digest_of_tensor(tensor):
            raise damaged(f"the checksum of tensor {shorten(name)} is wrong", where)
        return tensor

    return {name: replaced(value, copied, (name,)) for name, value in document.items()}
