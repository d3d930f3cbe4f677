"""The search for suspect labels: encoder, heads by fold, neighbours, and the ranking."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from manyheads.config import Config, TaskConfig
from manyheads.data.hold_out import text_key
from manyheads.data.readers import Layout
from manyheads.data.records import Record, discover_labels, read_records
from manyheads.data.suspects import Suspect, Suspects
from manyheads.errors import DataError, RequestError, counted, listing
from manyheads.tasks import Floats, TaskSpec, WordSpan, kind_of
from manyheads.text import truncate
from manyheads.training.frozen_heads import Advance, FrozenHeads
from manyheads.training.one_run import one_run
from manyheads.training.progress import Progress, counting
from manyheads.training.suspects.folds import Folding, OutOfFold
from manyheads.training.suspects.neighbours import neighbour_shares
from manyheads.training.suspects.ranking import ranked

MOST = 1000
"""The most suspects to return, unless the caller asks for more."""
_NEIGHBOURS = 0.5
"""The weight of the neighbours' labels; the rest is that of the heads' probabilities."""
_LEAST_RECORDS = 20


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    tokens: tuple[WordSpan, ...] | None
    words: Sequence[WordSpan]


@one_run()
def find_suspects(
    path: str,
    config: Config,
    *,
    count: int | None = None,
    folding: Folding | None = None,
    progress: Progress | None = None,
) -> Suspects:
    """Find the labels of a file that are likely wrong.

    Every label is compared with the probabilities of heads that were not trained on its record. The
    heads use the frozen encoder, which reads each record once. For tasks with classes, the labels
    of the nearest other sentences have as much weight as the heads.

    Args:
        path: labelled records.
        config: tasks, encoder and machine settings.
        count: the most suspects to return; default, all that are more likely wrong than right, at
            most `MOST`.
        folding: how often heads are trained.
        progress: shows the progress.

    Raises:
        DataError: a record cannot be read, or there are too few, or too few different texts.
        RequestError: no task has labels that can be checked, or another thread trains.
        ModelError: the encoder cannot be used.
    """
    began = time.monotonic()
    tasks = {n: t for n, t in config.tasks.items() if kind_of(t.kind).checks_labels}
    skipped = [n for n in config.tasks if n not in tasks]
    if not tasks:
        raise RequestError(
            f"the labels of {listing(skipped)} are numbers, which cannot be checked",
            expected="a task with classes or entities",
        )
    layout = Layout.of(config)
    label_sets = discover_labels(tasks, [path], layout)
    records = list(read_records(path, tasks, label_sets, layout=layout))
    if len(records) < _LEAST_RECORDS:
        raise DataError(
            counted(len(records), "record"),
            where=path,
            expected=f"at least {_LEAST_RECORDS} records, most of them with correct labels",
        )
    folding = folding or Folding(seed=config.seed)
    few = _with_few_texts(records, tasks, folding.folds, path)
    tasks = {name: task for name, task in tasks.items() if name not in few}
    label_sets = {name: label_sets[name] for name in tasks}
    heads = FrozenHeads(records, tasks, label_sets, config, keeps_layers=True)
    made = out_of_fold(heads, records, folding, progress)
    found = suspects_among(records, tasks, with_neighbours(made, heads), config.seed)
    likely = [one for one in found if one.score > 0][:MOST] if count is None else found[:count]
    notes = []
    if skipped:
        notes.append(f"not checked: {listing(skipped)} (numbers are neither right nor wrong)")
    if few:
        notes.append(f"not checked: {listing(few)} (labels in fewer than {folding.folds} texts)")
    seconds = time.monotonic() - began
    kinds = {name: task.kind for name, task in tasks.items()}
    return Suspects(path, len(records), kinds, tuple(likely), tuple(notes), seconds)


def _with_few_texts(
    records: Sequence[Record], tasks: Iterable[str], folds: int, path: str
) -> list[str]:
    """Return the tasks with labels in fewer texts than there are folds; copies count once.

    Raises:
        DataError: all of them are such tasks.
    """
    keys = [text_key(record) for record in records]
    texts = {
        name: len({key for key, record in zip(keys, records, strict=True) if name in record.labels})
        for name in tasks
    }
    few = [name for name, number in texts.items() if number < folds]
    if len(few) == len(texts):
        raise DataError(
            f"labels in {counted(max(texts.values()), 'different text')}",
            where=path,
            expected=f"at least {folds}; texts that differ only in numbers, case or punctuation "
            "are copies",
        )
    return few


def _in_records(advance: Advance, records: int, passes: int) -> Advance:
    """Return what takes passes over records, and reports the share of all as whole records."""
    read = shown = 0

    def take(count: int) -> None:
        nonlocal read, shown
        read += count
        done = read * records // passes
        advance(done - shown)
        shown = done

    return take


@dataclass(frozen=True)
class Probabilities:
    """The log probabilities of labels, from models that have not seen the records' own labels."""

    logs: Mapping[str, Sequence[Floats]]
    """By task, for each record: [L], or [W, L] by word."""
    words: Sequence[Sequence[WordSpan]]
    """For each record, the spans of the words that the encoder reads, in characters."""
    specs: Mapping[str, TaskSpec]


def out_of_fold(
    heads: FrozenHeads,
    records: Sequence[Record],
    folding: Folding,
    progress: Progress | None = None,
) -> Probabilities:
    """Train heads by fold on the frozen encoder, and return their probabilities.

    Args:
        heads: the encoder and the records' labels.
        records: the records.
        folding: how often heads are trained.
        progress: shows the progress.
    """
    judged = OutOfFold(heads, [text_key(record) for record in records], folding)
    with counting(progress, len(records)) as shown:
        advance = _in_records(shown.advance, len(records), judged.passes)
        logs = judged.log_probabilities(advance)
    words: list[Sequence[WordSpan]] = []
    for start in range(0, len(records), 1024):
        encodings = heads.tokenizer.encode_batch([r.text for r in records[start : start + 1024]])
        for encoding in encodings:
            spans = truncate(encoding, heads.max_length)[0].word_spans.tolist()
            words.append([(first, last) for first, last in spans])
    return Probabilities(logs, words, heads.specs())


def with_neighbours(made: Probabilities, heads: FrozenHeads) -> Probabilities:
    """Mix the labels of the nearest sentences into the heads' probabilities of classes.

    Args:
        made: the heads' probabilities.
        heads: the encoder and the records' labels.
    """
    logs = dict(made.logs)
    vectors = heads.sentences()
    for name, task in heads.tasks.items():
        kind = kind_of(task.kind)
        if not kind.per_word and not kind.pairs:
            logs[name] = _mixed(logs[name], vectors, heads, name)
    return replace(made, logs=logs)


def suspects_among(
    records: Sequence[Record],
    tasks: Mapping[str, TaskConfig],
    probabilities: Probabilities,
    seed: int = 0,
) -> list[Suspect]:
    """Rank the labels of records: for each part of a label, its best replacement, likelier or not.

    Args:
        records: the records.
        tasks: their tasks, of kinds whose labels can be checked.
        probabilities: from models that have not seen the records' own labels.
        seed: determines the labels that the ranking is learned from.
    """
    found: list[Suspect] = []
    for name in tasks:
        places = [i for i, record in enumerate(records) if name in record.labels]
        logs, words = probabilities.logs[name], probabilities.words
        texts = [_Text(records[i].text, records[i].tokens, words[i]) for i in places]
        labels = [records[i].labels[name] for i in places]
        by_record = ranked(
            probabilities.specs[name], labels, texts, [logs[i] for i in places], seed
        )
        found += [
            Suspect(
                i + 1, records[i].where, records[i].text, name, one.error, round(one.score, 4),
                one.given, one.proposed,
            )
            for i, suspicions in zip(places, by_record, strict=True)
            for one in suspicions
        ]  # fmt: skip
    return sorted(found, key=lambda one: -one.score)


def _mixed(logs: Sequence[Floats], vectors: Floats, heads: FrozenHeads, task: str) -> list[Floats]:
    """Mix the labels of the nearest sentences into the probabilities of a task."""
    targets = heads.data.targets[task]
    known = targets.labelled[heads.rows]
    labels = np.zeros((len(logs), targets.num_labels), np.float32)
    for i in np.flatnonzero(known):
        labels[i, targets.values.row(int(heads.rows[i]))] = 1.0
    shares = neighbour_shares(vectors, labels, known)
    return list(_mean_log_odds(np.stack(logs), shares))


def _mean_log_odds(heads: Floats, neighbours: Floats) -> Floats:
    """Average the log odds of heads and neighbours, and return log probabilities.

    Args:
        heads: [N, L] log probabilities.
        neighbours: [N, L] shares of the labels.
    """
    without = np.log1p(-np.minimum(np.exp(heads), 1 - 1e-6))
    has = (1 - _NEIGHBOURS) * heads + _NEIGHBOURS * np.log(neighbours)
    has_not = (1 - _NEIGHBOURS) * without + _NEIGHBOURS * np.log1p(-neighbours)
    mean: Floats = (has - np.logaddexp(has, has_not)).astype(np.float32)
    return mean
