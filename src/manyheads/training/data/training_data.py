"""The training and validation data of a run, read from its configuration's files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from manyheads.config import Config
from manyheads.data.readers import Layout, is_dataset_name, read_rows
from manyheads.data.records import (
    SECOND_TEXT,
    Reach,
    Record,
    RecordParser,
    check_text,
    discover_labels,
    read_records,
    unseen_labels,
)
from manyheads.errors import ConfigError, DataError, counted, listing, option, shorten
from manyheads.storage import sha256
from manyheads.tasks import LabelSet, kind_of, units_of, with_units
from manyheads.text import TextTokenizer, Units, scripts_message, unknown_scripts
from manyheads.training.data.batching import Source
from manyheads.training.data.dataset import Dataset, build_dataset
from manyheads.training.data.ragged import Integers
from manyheads.training.data.token_bins import TokenBins, join_bins, make_bins


@dataclass(frozen=True)
class TrainingData:
    """Everything a run reads from its data files."""

    label_sets: Mapping[str, LabelSet]
    datasets: tuple[Dataset, ...]
    """One for each training file."""
    sources: tuple[Source, ...]
    """The sources of batches, in the schedule's order."""
    validation: tuple[ValidationSet, ...]
    """One for each validation file."""
    texts: Dataset | None = None
    """Unlabelled sentences for distillation (`keep_embeddings.texts`)."""
    teacher_texts: Dataset | None = None
    """Unlabelled sentences for which the teacher is queried (`teacher.texts`)."""

    @cached_property
    def fingerprint(self) -> list[str]:
        """Checksums of all content: the labels' names, then each file's.

        They do not depend on the files' paths, or on content that training does not use.
        """
        names = {task: labels.names for task, labels in self.label_sets.items()}
        return [
            sha256(repr(sorted(names.items())).encode()),
            *(dataset.fingerprint() for dataset in self.datasets),
            *(part.fingerprint() for part in self.validation),
            *(
                texts.fingerprint()
                for texts in (self.texts, self.teacher_texts)
                if texts is not None
            ),
        ]


@dataclass(frozen=True)
class ValidationSet:
    """The records of a validation file, and the tasks that they validate."""

    path: str
    tasks: tuple[str, ...]
    records: tuple[Record, ...]

    def fingerprint(self) -> str:
        """Return a checksum of the texts and labels."""
        digest = hashlib.sha256()
        for record in self.records:
            content = (record.text, record.tokens, sorted(record.labels.items()))
            digest.update(repr(content).encode())
        return digest.hexdigest()


def load_training_data(
    config: Config,
    tokenizer: TextTokenizer,
    max_length: int,
    warn: Callable[[str], None],
    trained: Mapping[str, LabelSet] | None = None,
    units: Units | None = None,
    prompt: str = "",
) -> TrainingData:
    """Read, check and tokenise all files of a configuration.

    Args:
        config: the files and tasks.
        tokenizer: the encoder's tokenizer.
        max_length: sub-tokens at which a training record is truncated.
        warn: receives warnings for the user.
        trained: the labels of tasks whose heads are already trained; their order is preserved.
        units: what carries tags, if trained heads determine it. Default: words, or pieces of words
            where entities of the training data begin or end inside one.
        prompt: what the encoder's embedding reads before each text.

    Raises:
        DataError: a record is invalid, or a task has no labels.
        ConfigError: a task has no files, or its labels differ from its trained head's.
    """
    train_files = config.train_files()
    # With `refit`, nothing is validated.
    valid_files = {} if config.refit is not None else config.valid_files()
    label_sets = discover_labels(config.tasks, train_files, Layout.of(config))
    units = units or units_of(label_sets.values())
    label_sets = {name: with_units(labels, units) for name, labels in label_sets.items()}
    label_sets, read_as = _with_trained(config, label_sets, trained or {})
    reads_features = any(task.word_features == "on" for task in config.tasks.values())
    tokenizer = tokenizer.with_units(units).with_word_features(reads_features)
    reader = _Reader(config, label_sets, read_as, tokenizer, max_length, prompt, warn)
    validation = [reader.validation(path, names) for path, names in valid_files.items()]
    datasets = [reader.training(path, names) for path, names in train_files.items()]
    texts, teacher_texts = reader.held_texts(), reader.teacher_texts(datasets)
    sources = _sources(config, list(train_files.values()), datasets)
    return TrainingData(
        label_sets, tuple(datasets), sources, tuple(validation), texts, teacher_texts
    )


def _with_trained(
    config: Config, found: Mapping[str, LabelSet], trained: Mapping[str, LabelSet]
) -> tuple[dict[str, LabelSet], dict[str, LabelSet]]:
    """Put the trained heads' labels in place of those found.

    Returns:
        each task's labels, and those by which its records are read: if the configuration lists
        the labels, the list determines what an index in a record means.

    Raises:
        ConfigError: a task's labels differ from its trained head's.
    """
    label_sets, read_as = dict(found), dict(found)
    for name, labels in trained.items():
        is_listed = config.tasks[name].labels is not None
        check_labels(name, found[name], labels, listed=is_listed)
        label_sets[name] = labels
        if not is_listed:
            read_as[name] = labels
    return label_sets, read_as


def check_labels(task: str, found: LabelSet, trained: LabelSet, *, listed: bool) -> None:
    """Check that a trained head has the labels that it is to continue with.

    The data may lack some of them. Labels that the configuration lists must be exactly the head's,
    in any order.

    Args:
        task: the task's name.
        found: the labels that the configuration lists, or those of the training data.
        trained: the head's labels.
        listed: whether the configuration lists them.

    Raises:
        ConfigError: the labels differ.
    """
    strange = [name for name in found.names if name not in trained]
    missing = [name for name in trained.names if name not in found] if listed else []
    if not strange and not missing:
        return
    problem = f"has {listing(strange)}" if strange else f"lacks {listing(missing)}"
    raise ConfigError(
        f"`tasks.{task}.labels`: the {'list' if listed else 'training data'} {problem}, but the "
        "head in `init_from` is trained for others",
        expected=f"its labels: {listing(trained.names)}",
        fix="Give the task another name for a new head, or correct the labels.",
    )


def read_texts(
    paths: Sequence[str],
    tokenizer: TextTokenizer,
    max_length: int,
    *,
    keep_texts: bool = False,
    prompt: str = "",
    without: Collection[str] = (),
    once: bool = False,
) -> Dataset:
    """Read and tokenise unlabelled sentences: the lines of a .txt, or the texts of any records.

    Args:
        paths: their files.
        tokenizer: the encoder's tokenizer.
        max_length: sub-tokens that are kept of a sentence.
        keep_texts: whether to keep the texts too.
        prompt: text to put before each of them.
        without: sentences to leave out.
        once: whether to leave out repeated sentences too.

    Raises:
        DataError: they cannot be read.
    """
    records = (record for record in _texts(paths) if record.text not in without)
    return build_dataset(
        _distinct(records) if once else records, ", ".join(paths), {}, {}, tokenizer, max_length,
        keep_texts=keep_texts, prompt=prompt,
    )  # fmt: skip


def _texts(paths: Sequence[str]) -> Iterator[Record]:
    """Make an unlabelled record of every sentence, including both sentences of a pair."""
    for path in paths:
        has_lines = path.lower().endswith(".txt") and not is_dataset_name(path)
        parse = RecordParser({}, {})
        layout = Layout(format="text" if has_lines else None)
        for row in read_rows(path, layout=layout, needs_labels=False):
            yield parse(row)
            if (other := row.fields.get(SECOND_TEXT)) is not None:
                yield Record(check_text(other, SECOND_TEXT, row.where), None, {}, row.where)


def _distinct(records: Iterable[Record]) -> Iterator[Record]:
    seen: set[str] = set()
    for record in records:
        if record.text not in seen:
            seen.add(record.text)
            yield record


@dataclass(frozen=True)
class _Reader:
    """Reads the files of a run, and warns of what training would do unexpectedly."""

    config: Config
    label_sets: Mapping[str, LabelSet]
    read_as: Mapping[str, LabelSet]
    """The labels by which records are read (see `_with_trained`)."""
    tokenizer: TextTokenizer
    max_length: int
    prompt: str
    warn: Callable[[str], None]

    def training(self, path: str, names: tuple[str, ...]) -> Dataset:
        """Read and tokenise a training file."""
        tasks = {name: self.config.tasks[name] for name in names}
        unread: list[str] = []
        records = read_records(
            path, tasks, self.read_as, layout=Layout.of(self.config),
            read_elsewhere=self.config.tasks, on_unread=unread.append,
        )  # fmt: skip
        embed_only = [n for n, task in tasks.items() if not kind_of(task.kind).answers]
        has_prompt = len(embed_only) == len(tasks)
        if self.prompt and not has_prompt:
            self._warn_of_prompt(path, embed_only)
        dataset = build_dataset(
            records, path, tasks, self.label_sets, self.tokenizer, self.max_length,
            keep_texts=self.config.teacher is not None, prompt=self.prompt if has_prompt else "",
        )  # fmt: skip
        for message in (*unread, *self._too_long(dataset), *dataset.reach.messages()):
            self.warn(f"{path}: {message}")
        return dataset

    def _warn_of_prompt(self, path: str, embed_only: Sequence[str]) -> None:
        """Warn if an embedding is trained or held without the prompt that it is used with.

        The heads read the same pass of the encoder, and heads read texts without a prompt.
        """
        prompt = f"the encoder's default prompt {shorten(self.prompt)}"
        if embed_only:
            self.warn(
                f"{path}: the embedding of task {embed_only[0]!r} is trained without {prompt}, as "
                f"other tasks read the same texts; a `tasks.{embed_only[0]}.train_file` of its own "
                "trains it with the prompt"
            )
        keep = self.config.keep_embeddings
        if keep is not None and keep.texts is None:
            self.warn(
                f"{path}: `keep_embeddings` holds the embedding of these sentences without "
                f"{prompt}, as heads read the same texts; name sentences in "
                "`keep_embeddings.texts` to hold it with the prompt too"
            )

    def _too_long(self, dataset: Dataset) -> Iterator[str]:
        if dataset.truncated:
            yield (
                f"longer than {self.max_length} sub-tokens: {dataset.truncated:,} of "
                f"{counted(len(dataset), 'record')}; training does not see the last "
                f"{counted(dataset.words_lost, 'word')} in all. "
                f"{option('`manyheads data check`', 'manyheads.check')} lists them; "
                "a larger `max_length` keeps them."
            )

    def validation(self, path: str, names: tuple[str, ...]) -> ValidationSet:
        """Read a validation file.

        Raises:
            DataError: a record is invalid, or none has a label for one of the tasks.
        """
        tasks = {name: self.config.tasks[name] for name in names}
        records = tuple(
            read_records(
                path, tasks, self.read_as, layout=Layout.of(self.config), allow_unseen=True,
                read_elsewhere=self.config.tasks,
                on_unread=lambda message: self.warn(f"{path}: {message}"),
            )
        )  # fmt: skip
        for name in names:
            if not any(name in record.labels for record in records):
                raise DataError(
                    f"no record has a label for task {name!r}", where=path,
                    expected=f"labels in the field {' or '.join(tasks[name].fields)}",
                    fix=f"Set `tasks.{name}.field` or `tasks.{name}.valid_file`.",
                )  # fmt: skip
            for message in self._weak_validation(name, records):
                self.warn(f"{path}: {message}")
        messages = Reach.of(self.label_sets).add_all(records, self.tokenizer).messages()
        scripts = scripts_message(unknown_scripts([r.text for r in records], self.tokenizer))
        for message in filter(None, (*messages, scripts)):
            self.warn(f"{path}: {message}")
        return ValidationSet(path, names, records)

    def _weak_validation(self, task: str, records: Sequence[Record]) -> Iterator[str]:
        """Yield the reasons why records do not show how well a task is learned."""
        if kind_of(self.config.tasks[task].kind).can_be_empty and not any(
            record.labels.get(task) for record in records
        ):
            yield (
                f"no record has a label of task {task!r} that is not empty, so its score "
                "does not show which epoch is best"
            )
        unseen = unseen_labels(records, task, self.label_sets[task])
        if unseen:
            counts = listing(f"{label} ({count})" for label, count in unseen.items())
            yield (
                "never seen in training and counted as errors: "
                f"{counted(sum(unseen.values()), 'validation label')} of task {task!r}: {counts}"
            )

    def held_texts(self) -> Dataset | None:
        """Read the unlabelled sentences whose embedding is held."""
        keep = self.config.keep_embeddings
        if keep is None or keep.texts is None:
            return None
        return read_texts([keep.texts], self.tokenizer, self.max_length, prompt=self.prompt)

    def teacher_texts(self, datasets: Sequence[Dataset]) -> Dataset | None:
        """Read the unlabelled sentences for which the teacher is queried.

        Training sentences among them are left out unless there are no others: their answers are
        learned beside their labels. A sentence that several files of soft labels have is read
        once, as the mean of their labels is its target.
        """
        teacher = self.config.teacher
        if teacher is None or not teacher.unlabelled:
            return None
        known = {dataset.text(row) for dataset in datasets for row in range(len(dataset))}
        has_others = any(record.text not in known for record in _texts(teacher.unlabelled))
        return read_texts(
            teacher.unlabelled, self.tokenizer, self.max_length, keep_texts=True,
            without=known if has_others else (), once=teacher.texts is None,
        )  # fmt: skip


def _sources(
    config: Config, names: list[tuple[str, ...]], datasets: list[Dataset]
) -> tuple[Source, ...]:
    """Make the sources of batches: one for each task, or for each file if its tasks train jointly.

    Tasks whose records would train nothing are left out.
    """
    idle = config.idle_tasks
    if config.schedule == "joint":
        return tuple(
            _source(
                "+".join(tasks), tasks, number, datasets[number], config.batch_size,
                config.tokens_per_batch,
            )
            for number, file_tasks in enumerate(names)
            if (tasks := tuple(task for task in file_tasks if task not in idle))
        )  # fmt: skip
    dataset_of = {task: number for number, tasks in enumerate(names) for task in tasks}
    return tuple(
        _source(
            name, (name,), dataset_of[name], datasets[dataset_of[name]],
            task.batch_size or config.batch_size, config.tokens_per_batch, task.max_records,
        )
        for name, task in config.tasks.items()
        if name not in idle
    )  # fmt: skip


def _source(
    name: str,
    tasks: tuple[str, ...],
    number: int,
    dataset: Dataset,
    batch_size: int,
    tokens_per_batch: int | None,
    max_records: int | None = None,
) -> Source:
    rows, lengths = dataset.labelled_rows(tasks)
    bins = None if tokens_per_batch is None else _bins(dataset, rows, lengths, tokens_per_batch)
    return Source(name, tasks, number, rows, lengths, batch_size, bins, max_records)


def _bins(dataset: Dataset, rows: Integers, lengths: Integers, budget: int) -> TokenBins:
    """Group a source's rows by length; a pair has twice that of its longer text.

    Both texts are padded to the longest of their batch. Single texts have batches of their own:
    with pairs of the same length, whose texts are half as long, they would exceed the budget.
    """
    if dataset.partners is None:
        return make_bins(lengths, budget)
    partners = dataset.partners[rows]
    pairs, singles = np.flatnonzero(partners >= 0), np.flatnonzero(partners < 0)
    longer = np.maximum(lengths[pairs], dataset.tokens.lengths_of(partners[pairs]))
    return join_bins(
        [(singles, make_bins(lengths[singles], budget)), (pairs, make_bins(2 * longer, budget))]
    )
