"""The loss term of a teacher: distillation of every head at once (Hinton et al., 2015).

The teacher is queried once, before training. Its answers are learned with every batch of training
sentences, for all tasks, even those without labels there; unlabelled sentences get a pass of their
own, without dropout.

Axes: B sentences, W words, L labels, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from manyheads.config import Config, Teacher, is_soft_file
from manyheads.errors import ConfigError, listing
from manyheads.modeling import Compute, ModelInputs, MultiTaskModel, moved
from manyheads.tasks import EMBEDDING, kind_of, units_of
from manyheads.text import TextTokenizer
from manyheads.training.data.batching import Rows
from manyheads.training.data.dataset import Dataset
from manyheads.training.data.training_data import TrainingData
from manyheads.training.state import RunMismatch, restore
from manyheads.training.teaching.soft_labels import SoftLabels
from manyheads.training.teaching.sources import Source, TrainedTeacher
from manyheads.training.teaching.targets import Lesson, SoftTargets
from manyheads.training.unlabelled import UnlabelledSentences

TEACHERS = "teachers"
"""The checkpoint's key of the teachers' checksums."""
FOLDER = "teacher"
"""The folder in `save_dir` for the teachers' answers."""

_TEXTS = "teacher.texts"


@final
class Teaching:
    """The loss term that pulls all heads towards the teachers' answers.

    Args:
        settings: `teacher` of the configuration.
        config: the run.
        data: the training sentences, and the unlabelled ones if there are any.
        digests: the teachers' checksums.
        targets: those of each data set.
        text_targets: those of the unlabelled sentences.
    """

    name = "from teacher"
    """No task can have this name."""

    def __init__(
        self,
        settings: Teacher,
        config: Config,
        data: TrainingData,
        digests: Sequence[str],
        targets: Sequence[SoftTargets],
        text_targets: SoftTargets | None,
    ) -> None:
        self.weight = settings.weight
        self._settings = settings
        self._weights = {name: task.weight for name, task in config.tasks.items()}
        self._pairs = {n for n, task in config.tasks.items() if kind_of(task.kind).pairs}
        self._datasets, self._digests = data.datasets, list(digests)
        self._targets, self._text_targets = targets, text_targets
        self._unlabelled = None
        if data.teacher_texts is not None:
            size = settings.batch_size or config.batch_size
            self._unlabelled = UnlabelledSentences(_TEXTS, data.teacher_texts, size, config.seed)

    @classmethod
    def of_run(
        cls,
        config: Config,
        data: TrainingData,
        tokenizer: TextTokenizer,
        max_length: int,
        stored: Sequence[str] | None,
        compute: Compute,
        report: Callable[[str], None],
    ) -> Teaching | None:
        """Query the configured teachers; None if there are none.

        Args:
            config: the run.
            data: its sentences.
            tokenizer: the student's.
            max_length: sub-tokens that the student reads.
            stored: the teachers' checksums in the checkpoint of a resumed run.
            compute: where, and in which precision, the teachers run.
            report: receives messages for the user.

        Raises:
            ConfigError: a teacher does not fit the tasks.
            RunMismatch: the run was started with other teachers.
        """
        settings = config.teacher
        if settings is None:
            return None
        sources = _open(config, settings, stored, compute, report)
        if settings.embedding and not any(source.embeds for source in sources):
            raise ConfigError(
                f"`teacher.embedding` is {settings.embedding:g}, but no teacher has an embedding",
                expected=f"a trained model, or records with the field `{EMBEDDING}`",
                fix="Leave out `teacher.embedding`, or name a model too.",
            )
        digests = [source.digest for source in sources]
        if stored is not None and digests != list(stored):
            raise RunMismatch(
                f"the run cannot be resumed, because the teacher has changed "
                f"({listing(settings.sources)})",
                expected="the models and files that it was started with",
                fix=restore(),
            )
        tasks = {name: task for name, task in config.tasks.items() if name in data.label_sets}
        lesson = Lesson.of(sources, tasks, data.label_sets, settings.embedding > 0)
        units = units_of(data.label_sets.values())
        tokenizer = tokenizer.with_units(units)
        every = [*data.datasets, *([data.teacher_texts] if data.teacher_texts else [])]
        for message in lesson.describe(every):
            report(message)
        targets = [lesson.targets(one, tokenizer, max_length, report) for one in every]
        texts = targets.pop() if data.teacher_texts else None
        return cls(settings, config, data, digests, targets, texts)

    def tasks(self, dataset: int) -> tuple[str, ...]:
        """Return the tasks whose outputs the loss reads (see `LossTerm.tasks`)."""
        has_pairs = self._datasets[dataset].partners is not None
        return tuple(
            name for name in self._targets[dataset].values if has_pairs or name not in self._pairs
        )

    def loss(
        self, model: MultiTaskModel, dataset: int, rows: Rows, outputs: Mapping[str, Tensor]
    ) -> Tensor:
        """Compute the weighted sum of the tasks' distances from the teacher's answers.

        A task's distance is the sum over the known answers, divided by the mean number of known
        answers for as many sentences of the data set. So is that of embeddings of equal length.
        """
        tasks = self.tasks(dataset)
        return self._distance(
            model, self._targets[dataset], self._datasets[dataset], rows, outputs, tasks
        )

    def unlabelled_loss(
        self,
        model: MultiTaskModel,
        step: int,
        share: Callable[[Rows], Rows] = lambda rows: rows,
    ) -> Tensor | None:
        """Compute the same for this process's part of the step's unlabelled sentences."""
        unlabelled, targets = self._unlabelled, self._text_targets
        if unlabelled is None or targets is None:
            return None
        tasks = tuple(name for name in targets.values if name not in self._pairs)

        def mean_distance(inputs: ModelInputs, rows: Rows) -> Tensor:
            # cuDNN's recurrent layers have no backward pass in evaluation mode.
            with torch.backends.cudnn.flags(enabled=False):
                outputs = model(inputs, tasks)
            return self._distance(model, targets, unlabelled.texts, rows, outputs, tasks)

        return unlabelled.loss(model, step, share, mean_distance)

    def state(self) -> dict[str, Any]:
        """Return the teachers' checksums."""
        return {TEACHERS: self._digests}

    def _distance(
        self,
        model: MultiTaskModel,
        targets: SoftTargets,
        dataset: Dataset,
        rows: Rows,
        outputs: Mapping[str, Tensor],
        tasks: Sequence[str],
    ) -> Tensor:
        width = max(1, int(dataset.words.lengths_of(rows).max(initial=0)))
        device = outputs[EMBEDDING].device
        total = torch.zeros((), device=device)
        for task in tasks:
            wanted = torch.from_numpy(targets.batch(task, rows, width))
            if task in self._pairs:
                wanted = torch.cat([wanted, _second_rows(dataset, rows)], dim=1)
            distance = model.head(task).soft_loss(
                outputs[task], moved(wanted, device), self._settings.temperature
            )
            share = _share(wanted, targets.known[task])
            total = total + self._weights[task] * share * distance
        if targets.embedding is not None:
            wanted = torch.from_numpy(targets.embeddings(rows))
            distance = embedding_distance(outputs[EMBEDDING], moved(wanted, device))
            share = _share(wanted, targets.known[EMBEDDING])
            total = total + self._settings.embedding * share * distance
        return total


def _share(wanted: Tensor, known: float) -> float:
    """Return how many answers of a batch are known, relative to `known` for each sentence.

    With this factor on their means, the parts of a batch, in several processes or accumulated, add
    up to the whole.

    Args:
        wanted: [B, S] or [B, W, S], NaN where nothing is known.
        known: the expected number for a sentence.
    """
    if not wanted.shape[-1]:
        return 0.0
    return int((~wanted[..., 0].isnan()).sum()) / max(1e-6, known * len(wanted))


def _open(
    config: Config,
    settings: Teacher,
    stored: Sequence[str] | None,
    compute: Compute,
    report: Callable[[str], None],
) -> list[Source]:
    known = [None] * len(settings.sources) if stored is None else stored
    return [
        SoftLabels(path, config.tasks, embed=settings.embedding > 0, report=report)
        if is_soft_file(path)
        else TrainedTeacher(
            path, Path(config.save_dir) / FOLDER, digest, compute=compute, report=report
        )
        for path, digest in zip(settings.sources, known, strict=True)
    ]  # fmt: skip


def _second_rows(dataset: Dataset, rows: Rows) -> Tensor:
    """Return each text's row of its pair's second text in the batch, [B, 1]; 0 without one."""
    assert dataset.partners is not None
    is_pair = dataset.partners[rows] >= 0
    places = len(rows) - is_pair.sum() + np.cumsum(is_pair) - 1
    return torch.from_numpy(np.where(is_pair, places, 0).astype(np.float32))[:, None]


def embedding_distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Compute the mean distance of embeddings from a teacher's, over those that are known.

    The distance is 1 - cosine or, if the vectors differ in length, the mean squared difference of
    the cosines between all pairs of sentences in the batch. The latter does not add up over the
    parts of a batch, accumulated or in several processes, which lack the pairs across parts.

    Args:
        found: [B, E] float.
        wanted: [B, F] float32; rows with NaN do not count.
    """
    # In a batch of which nothing is known, rows have no columns.
    known = ~wanted.isnan().any(dim=1) & (wanted.shape[1] > 0)
    found, wanted = found[known].float(), wanted[known]
    count = max(1, len(found))
    if found.shape[1] == wanted.shape[1]:
        return (1.0 - functional.cosine_similarity(found, wanted, dim=1)).sum() / count
    one, other = (functional.normalize(v, dim=1) for v in (found, wanted))
    return (one @ one.T - other @ other.T).square().sum() / count**2
