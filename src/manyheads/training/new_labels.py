"""Adding labels to a trained head: new rows of its parameters, fitted to a few examples.

All other parameters are unchanged. The old labels' scores therefore stay the same, and a decision
changes only where a new label scores higher. Records with old labels ("kept records") are the
negative examples: two thirds of them are used for fitting, the others are scored before and after.
With one label a text, the new labels' scores are lowered until old answers are rarely lost in a
cross-validation on the former.

Axes: B sentences, W words, N inputs of a head's last layer, D their size, L labels.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manyheads.config import Config, TaskConfig
from manyheads.data.readers import Layout
from manyheads.data.records import Record, label_names, read_records
from manyheads.errors import (
    ConfigError,
    DataError,
    ModelError,
    RequestError,
    at,
    counted,
    listing,
    nearest,
)
from manyheads.evaluation import own_validation_files, score
from manyheads.inference import LoadedModel
from manyheads.inference.backends.pytorch import TrainedModel, load_trained, make_predictor
from manyheads.modeling import (
    Head,
    MultiTaskModel,
    choose_compute,
    make_head,
    model_contents,
    save_model_folder,
)
from manyheads.storage import (
    StrPath,
    explained,
    read_manifest,
    refuse_other_folder,
    resolve_model,
    set_calibration,
)
from manyheads.tasks import LabelSet, Scheme, TagSet, kind_of
from manyheads.tasks.found import natural_order
from manyheads.tasks.metrics import numbers
from manyheads.training.data.dataset import Dataset, build_dataset

STEPS = 80
LEARNING_RATE = 0.02
NEW_SHARE = 0.3
"""The weight of the new examples in the loss; kept records have the rest. If a text can have
several labels, new ones do not compete with old ones, and both weigh the same."""
SHRINKAGE = 0.3
"""The weight of a multiple of the identity in the covariance of the inputs."""
LIMIT = 0.3
"""The most right answers with old labels that may be lost, in hundredths of the kept records."""
FOLDS = 3
_LEAST = 1e-3
"""The least step by which a score is lowered."""
MOST_KEPT = 6000
"""The most kept records that are read."""
_NAME_KEPT = "Name labelled records: --kept FILE."
_ROWS = 64
_WORD_ROWS = 128


@dataclass(frozen=True)
class AddedLabels:
    """A model with new labels, and what they changed for the old ones."""

    path: Path
    """The new model's folder."""
    task: str
    examples: Mapping[str, int]
    """The number of records of each new label."""
    kept: int
    """The number of kept records that were scored."""
    changed: int
    """How many of these have another answer than before."""
    before: float
    """The task's main metric on them before."""
    after: float

    def __str__(self) -> str:
        labels = listing(f"{name} ({n})" for name, n in self.examples.items())
        return (
            f"New labels of {self.task} (examples): {labels}. Of {counted(self.kept, 'record')} "
            f"with old labels, {self.changed} {'has' if self.changed == 1 else 'have'} another "
            f"answer; their score was {self.before:.4f} and is now {self.after:.4f}."
        )


def add_label(
    model: StrPath,
    task: str,
    *,
    train_file: str,
    kept: str | None = None,
    save_dir: StrPath,
    limit: float = LIMIT,
    overwrite: bool = False,
    threads: int | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> AddedLabels:
    """Add the labels of a file that a trained model's task lacks to that task.

    Args:
        model: a model folder, a checkpoint or a run's folder; it is not changed.
        task: the task.
        train_file: examples of the new labels, and possibly of old ones.
        kept: records with old labels. Default: the validation data of the run.
        save_dir: the folder of the new model.
        limit: the right answers that may be lost, in hundredths of the kept records, for tasks
            with one label a text.
        overwrite: whether to replace a model in that folder.
        threads: processor threads; default: all available cores.
        report: receives messages for the user.

    Raises:
        ManyheadsError: the model, a file or the folder cannot be used, or no label is new.
    """
    if not 0 <= limit <= 100:
        raise RequestError(f"the limit is {limit}", expected="0 to 100 hundredths of the records")
    path = resolve_model(model)
    _check_target(Path(save_dir), path, overwrite)
    trained = load_trained(path)
    compute = choose_compute("cpu", "float32", threads)
    head = _extensible(trained, task, path)
    examples, labels = _examples(trained.config.tasks[task], task, head.labels, train_file)
    new = labels.names[len(head.labels) :]
    report(f"New labels of {task}: {listing(_kinds(labels, new))}. Reading kept records ...")
    predictor = make_predictor(trained.model, compute, trained.tokenizer, trained.max_length)
    old = LoadedModel(os.fspath(path), predictor, trained.config)
    fitted, scored = _kept_records(old, task, head.labels, kept)
    config = _extended_config(trained.config, task, labels)
    grown = make_head(config.tasks[task], labels, trained.model.encoder.shape).eval()
    masks = _grow(grown, head)
    layer = _last_layer(grown, masks, head.kind)
    heads = {name: trained.model.head(name) for name in trained.model.heads}
    after = MultiTaskModel(trained.model.encoder, {**heads, task: grown}, trained.model.head_layers)

    def batches(records: Sequence[Record], source: str) -> list[_Batch]:
        settings = {task: config.tasks[task]}
        tokenizer = predictor.tokenizer
        data = build_dataset(
            records, source, settings, {task: labels}, tokenizer, trained.max_length
        )
        return list(_batches(after, task, layer, data))

    report(f"Fitting {counted(len(new), 'row')} of the head ...")
    learned = batches(examples, train_file), batches(fitted, "the kept records")
    if kind_of(head.kind).exclusive and len(fitted) >= FOLDS:
        _fit_within(grown, layer, masks, *learned, limit)
    else:
        _fit(grown, layer, masks, *learned)
    outcomes = [
        score(one, [(scored, (task,))]).tasks[task]
        for one in (
            predictor,
            make_predictor(after, compute, trained.tokenizer, trained.max_length),
        )
    ]
    shown = [[kind_of(o.spec.kind).shown(o.spec, p) for p in o.predicted] for o in outcomes]
    with explained(save_dir):
        Path(save_dir).parent.mkdir(parents=True, exist_ok=True)
    contents = model_contents(after.eval(), config, trained.max_length, _metrics(path, task))
    save_model_folder(save_dir, contents)
    _carry_calibrations(path, Path(save_dir), task, report)
    scores = [numbers(one.metrics())[one.spec.main_metric] for one in outcomes]
    return AddedLabels(
        Path(save_dir), task, _counts(examples, task, _kinds(labels, new)), len(scored),
        sum(a != b for a, b in zip(*shown, strict=True)), *scores,
    )  # fmt: skip


# -------------------------------------------------------------------------------------- what is new


def _check_target(target: Path, model: Path, overwrite: bool) -> None:
    if target.resolve() in (model.resolve(), *model.resolve().parents):
        raise RequestError(
            "is the model that is extended", where=at(target), expected="another folder",
            fix="Name one: --output DIR.",
        )  # fmt: skip
    refuse_other_folder(target)
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise RequestError(
            "holds a model", where=at(target),
            fix="Replace it with --overwrite, or name another folder: --output DIR.",
        )  # fmt: skip


def _extensible(trained: TrainedModel, task: str, path: Path) -> Head:
    """Return the head of a task to which labels can be added.

    Raises:
        RequestError: there is no such task, or its labels have no names.
    """
    if task not in trained.model.heads:
        raise RequestError(
            f"the model has no task {task!r}{nearest(task, trained.model.heads)}", where=at(path),
            expected=f"one of: {listing(trained.model.heads)}",
            fix="For a new task, use `manyheads add-head`.",
        )  # fmt: skip
    head = trained.model.head(task)
    kind = kind_of(head.kind)
    if not kind.named_labels or kind.pairs:
        raise RequestError(
            f"the task {task!r} is of kind {head.kind}", where=at(path),
            expected="a task whose labels have names, for single texts",
        )  # fmt: skip
    return head


def _examples(
    settings: TaskConfig, task: str, old: LabelSet, file: str
) -> tuple[list[Record], LabelSet]:
    """Read the examples, and return them with the old labels followed by the new ones.

    Raises:
        DataError: a record does not fit the task, or none has a new label.
    """
    free = settings.model_copy(update={"labels": None, "num_labels": None})
    known = frozenset(old.types if isinstance(old, TagSet) else old.names)
    records = [one for one in read_records(file, {task: free}, {}) if task in one.labels]
    found = [name for record in records for name in label_names(record.labels[task])]
    new = natural_order(dict.fromkeys(name for name in found if name not in known))
    if not new:
        raise DataError(
            f"no record has a new label of the task {task!r}", where=file,
            expected=f"others than: {listing(sorted(known))}",
            fix="To train on with the same labels, use `manyheads train` with `init_from`.",
        )  # fmt: skip
    numeral = next((name for name in new if name.isdecimal()), None)
    if numeral is not None and not any(name.isdecimal() for name in known):
        raise DataError(
            f"the label {numeral} of the task {task!r} looks like an index", where=file,
            expected=f"names, as the model has: {listing(sorted(known))}",
        )  # fmt: skip
    if isinstance(old, TagSet):
        tags = [f"{prefix}-{name}" for name in new for prefix in "BI"]
        names = (*old.names, *(tags if old.scheme is Scheme.BIO else new))
        return records, replace(old, names=names, stages=(*old.stages, len(old)))
    return records, LabelSet((*old.names, *new))


def _kinds(labels: LabelSet, new: Sequence[str]) -> list[str]:
    """Return new labels as records name them: for BIO tags, the entity types."""
    is_bio = isinstance(labels, TagSet) and labels.scheme is Scheme.BIO
    return list(dict.fromkeys(name[2:] if is_bio else name for name in new))


def _counts(records: Sequence[Record], task: str, new: Sequence[str]) -> dict[str, int]:
    counts = Counter(n for one in records for n in {*label_names(one.labels[task])})
    return {name: counts[name] for name in new}


def _kept_records(
    model: LoadedModel, task: str, old: LabelSet, file: str | None
) -> tuple[list[Record], list[Record]]:
    """Read records with old labels, and return those to fit and those to score.

    Raises:
        RequestError: no file is named, and the run's validation data are not available.
        DataError: fewer than three records have old labels.
    """
    layout = None
    if file is None:
        try:
            file = next(iter(own_validation_files(model, [task])))
        except (ConfigError, ModelError) as error:
            raise RequestError(
                f"adding labels needs records with the old ones: {error.found}",
                where=error.where, fix=_NAME_KEPT,
            ) from None  # fmt: skip
        layout = Layout.of(model.config)
    known = frozenset(old.types if isinstance(old, TagSet) else old.names)
    records = []
    for record in read_records(
        file, {task: model.config.tasks[task]}, {task: old}, layout=layout, allow_unseen=True
    ):
        if task in record.labels and known.issuperset(label_names(record.labels[task])):
            records.append(record)
        if len(records) == MOST_KEPT:
            break
    if len(records) < 3:
        raise DataError(
            f"{counted(len(records), 'record')} with old labels of the task {task!r}", where=file,
            expected="at least 3, from which the new labels are told apart",
            fix=_NAME_KEPT,
        )  # fmt: skip
    return [r for i, r in enumerate(records) if i % 3], records[::3]


def _extended_config(config: Config, task: str, labels: LabelSet) -> Config:
    """Return the configuration with all labels in the task's settings."""
    settings = config.tasks[task]
    update: dict[str, Any] = {}
    if settings.labels is not None:
        update["labels"] = labels.names
    if settings.num_labels is not None:
        update["num_labels"] = len(labels)
    tasks = {**config.tasks, task: settings.model_copy(update=update)}
    return config.model_copy(update={"tasks": tasks})


def _metrics(path: Path, task: str) -> dict[str, Any]:
    """Return a model's stored scores without those of a task."""
    metrics = dict(read_manifest(path).metrics) if path.is_dir() else {}
    if metrics:
        metrics["tasks"] = {n: scores for n, scores in metrics["tasks"].items() if n != task}
        metrics.pop("frame_accuracy", None)
    return metrics


def _carry_calibrations(model: Path, new: Path, task: str, report: Callable[[str], None]) -> None:
    """Copy the calibrations of the other tasks, whose scores are unchanged."""
    known = read_manifest(model).calibration.get("tasks", {}) if model.is_dir() else {}
    if others := {name: scores for name, scores in known.items() if name != task}:
        set_calibration(new, {"tasks": others})
    if task in known:
        report(
            f"The scores of {task} are not calibrated with the new labels. "
            f"Run: manyheads calibrate {new} --file FILE"
        )


# ---------------------------------------------------------------------------------------- new rows


def _grow(head: Head, old: Head) -> dict[str, Tensor]:
    """Copy a head's parameters into one for more labels, and set its other values to 0.

    Returns:
        For each parameter with new values, a mask that is 1 at those and 0 elsewhere.
    """
    masks = {}
    before = old.state_dict()
    with torch.no_grad():
        for name, tensor in head.state_dict().items():
            block = tuple(map(slice, before[name].shape))
            if tensor.shape != before[name].shape:
                masks[name] = torch.ones_like(tensor)
                masks[name][block] = 0.0
                tensor.zero_()
            tensor[block] = before[name]
    return masks


def _last_layer(head: Head, masks: Mapping[str, Tensor], kind: str) -> nn.Linear:
    """Return the layer that computes a head's logits.

    Raises:
        RequestError: there is no such layer, which is possible in a kind defined by the user.
    """
    layers = [
        module
        for name, module in head.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" in masks
    ]
    if len(layers) != 1:
        raise RequestError(
            f"the heads of the kind {kind!r} have {counted(len(layers), 'layer')} whose size is "
            "the number of labels",
            expected="one linear layer that computes the logits",
        )
    return layers[0]


@dataclass(frozen=True)
class _Batch:
    inputs: Tensor
    """[B, D] or [B, W, D], the inputs of the head's last layer."""
    targets: Tensor
    """The targets for the head's loss."""


def _batches(model: MultiTaskModel, task: str, layer: nn.Linear, data: Dataset) -> Iterator[_Batch]:
    """Run the frozen part of a model on records. All sentences make one batch, words several."""
    caught: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    model.eval()
    found = []
    size = _WORD_ROWS if kind_of(model.head(task).kind).per_word else _ROWS
    lengths = data.tokens.lengths_of(np.arange(len(data)))
    order = np.argsort(lengths, kind="stable")
    try:
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            inputs = data.inputs(rows, model.encoder.pad_id)
            with torch.no_grad():
                model.head(task)(model.features(inputs, [task]))
            targets = data.targets[task].collate(rows, inputs.word_mask.shape[1])
            found.append(_Batch(caught.pop(), targets))
    finally:
        hook.remove()
    if size == _WORD_ROWS:
        yield from found
    else:
        parts = zip(*((batch.inputs, batch.targets) for batch in found), strict=True)
        yield _Batch(*(torch.cat(part) for part in parts))


def _fit_within(
    head: Head,
    layer: nn.Linear,
    masks: Mapping[str, Tensor],
    new: Sequence[_Batch],
    kept: Sequence[_Batch],
    limit: float,
) -> None:
    """Fit a head's new values so that few right answers with old labels are lost.

    How many are lost is estimated by cross-validation on the kept records, whose fitted scores are
    lower than those of other texts. For heads with one label a sentence.

    Args:
        limit: the right answers that may be lost, in hundredths of the kept records.
    """
    [records] = kept
    old = _old_labels(head, layer, masks)
    places = torch.arange(len(records.targets)) % FOLDS
    leads = []
    for fold in range(FOLDS):
        others = _Batch(records.inputs[places != fold], records.targets[places != fold])
        _fit(head, layer, masks, new, [others])
        with torch.no_grad():
            scores = layer(records.inputs[places == fold])
        best, found = scores[:, :old].max(dim=1)
        right = found == records.targets[places == fold]
        leads.append((scores[:, old:] - best[:, None])[right])
    _fit(head, layer, masks, new, kept)
    allowed = ceil(limit / 100 * len(records.targets))
    with torch.no_grad():
        layer.bias[old:] -= _penalties(torch.cat(leads), allowed)


def _penalties(leads: Tensor, allowed: int) -> Tensor:
    """Return how much lower each new label has to score, so that few answers are lost.

    In each step, the label is lowered that keeps the most answers for each unit of its score: where
    one label resembles an old one, the others stay as they are.

    Args:
        leads: [B, L] by how much each new label leads the best old one, which is right.
        allowed: the number of answers that may be lost.
    """
    penalties = torch.zeros(leads.shape[1])
    while True:
        lead, label = (leads - penalties).max(dim=1)
        lost = lead > 0
        excess = int(lost.sum()) - allowed
        if excess <= 0:
            return penalties
        choices = []
        for one in sorted(set(label[lost].tolist())):
            needed = lead[lost & (label == one)].sort().values[:excess]
            rates = torch.arange(1, len(needed) + 1) / needed.clamp(min=_LEAST)
            place = int(rates.argmax())
            choices.append((float(rates[place]), one, float(needed[place])))
        _, one, step = max(choices)
        penalties[one] += step + _LEAST


def _old_labels(head: Head, layer: nn.Linear, masks: Mapping[str, Tensor]) -> int:
    """Return the number of labels that the head had before."""
    name = next(name for name, one in head.named_parameters() if one is layer.weight)
    return int((masks[name][:, 0] == 0).sum())


def _fit(
    head: Head,
    layer: nn.Linear,
    masks: Mapping[str, Tensor],
    new: Sequence[_Batch],
    kept: Sequence[_Batch],
) -> None:
    """Fit a grown head's new values, whatever they were.

    The rows of the last layer are learned in coordinates in which the inputs of one label have
    equal variance in all directions. A few examples then separate the label from others by its
    mean, and not by directions in which all labels vary.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in head.named_parameters()}
    old = _old_labels(head, layer, masks)
    whitening = _whitening(layer, old, [*new, *kept])
    rows = torch.zeros(layer.out_features - old, layer.in_features, requires_grad=True)
    others = [p for name, p in head.named_parameters() if name in masks and p is not layer.weight]
    hooks = []
    for parameter in others:
        mask = masks[names[parameter]]
        with torch.no_grad():
            parameter.masked_fill_(mask.bool(), 0.0)
        hooks.append(parameter.register_hook(lambda gradient, mask=mask: gradient * mask))  # type: ignore[no-untyped-call]
    optimizer = torch.optim.Adam([rows, *others], lr=LEARNING_RATE)
    trained = layer.weight.detach()[:old]

    def loss(batch: _Batch) -> Tensor:
        weight = torch.cat([trained, rows @ whitening])
        return head.loss(nn.functional.linear(batch.inputs, weight, layer.bias), batch.targets)

    share = 0.5 if new[0].targets.is_floating_point() else NEW_SHARE
    for _, one, other in zip(range(STEPS), cycle(new), cycle(kept), strict=False):
        optimizer.zero_grad()
        torch.autograd.backward(share * loss(one) + (1 - share) * loss(other))
        optimizer.step()
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        layer.weight[old:] = rows @ whitening


def _whitening(layer: nn.Linear, old: int, batches: Sequence[_Batch]) -> Tensor:
    """Return a matrix [D, D] by which the inputs of one label vary equally in all directions."""
    inputs, labels = [], []
    for batch in batches:
        flat = batch.inputs.flatten(0, -2)
        if batch.targets.is_floating_point():  # Several labels at once: take the most probable.
            with torch.no_grad():
                found = layer(flat)[:, :old].argmax(dim=1)
        else:
            found = batch.targets.flatten()
        inputs.append(flat[found >= 0])
        labels.append(found[found >= 0])
    vectors, groups = torch.cat(inputs), torch.cat(labels)
    counts = torch.bincount(groups, minlength=layer.out_features).clamp(min=1)
    sums = torch.zeros(layer.out_features, layer.in_features).index_add_(0, groups, vectors)
    rest = vectors - (sums / counts[:, None])[groups]
    covariance = rest.T @ rest / len(rest)
    mean = covariance.trace() / len(covariance)
    covariance = torch.lerp(covariance, mean * torch.eye(len(covariance)), SHRINKAGE)
    values, axes = torch.linalg.eigh(covariance.double())
    matrix = (axes * values.clamp(min=1e-12).rsqrt()) @ axes.T
    scaled: Tensor = matrix / matrix.trace() * len(matrix)
    return scaled.float()
