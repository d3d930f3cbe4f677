"""Soft targets: the answers of another model, learned beside labels or in place of them.

Axes: W words, L labels.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import DataError, listing, shorten
from manyheads.tasks.label_values import read_spans
from manyheads.tasks.labels import OUTSIDE, LabelSet
from manyheads.tasks.tag_labels import word_tags
from manyheads.tasks.tag_sequences import Floats

Spans = NDArray[np.integer[Any]]
"""[W, 2] the characters of words."""


def columns_of(theirs: Sequence[str], labels: LabelSet) -> NDArray[np.int64]:
    """Return each label's position among a teacher's labels.

    Raises:
        DataError: the labels differ in more than their order.
    """
    places = {name: i for i, name in enumerate(theirs)}
    missing = [name for name in labels.names if name not in places]
    strange = [name for name in theirs if name not in labels]
    if missing or strange:
        raise DataError(
            f"its labels lack {listing(missing)}" if missing else f"it also has {listing(strange)}",
            expected=f"the labels of the data: {listing(labels.names)}",
            fix="Train the teacher on data with the same labels, or list them in `labels`.",
        )
    return np.array([places[name] for name in labels.names], np.int64)


def word_of_each(words: Spans, theirs: Spans) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Find for each word the one of a teacher's words that shares characters with it.

    Args:
        words: [W, 2], in order.
        theirs: [V, 2] of the same text, in order.

    Returns:
        [W] the number of the teacher's word, -1 where it has none; and [W] whether the word
        begins inside the teacher's.
    """
    if not len(theirs):
        return np.full(len(words), -1), np.zeros(len(words), np.bool_)
    places = np.searchsorted(theirs[:, 1], words[:, 0], side="right")
    inside = np.minimum(places, len(theirs) - 1)
    shares = (places < len(theirs)) & (theirs[inside, 0] < words[:, 1])
    return np.where(shares, inside, -1), shares & (theirs[inside, 0] < words[:, 0])


def read_probability(value: Any, name: str, where: str) -> float:
    """Read a probability.

    Raises:
        DataError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(
            f"the probability of {shorten(name)} is {shorten(value)}",
            where=where,
            expected="a number from 0 to 1",
        )
    return float(value)


def read_distribution(value: Any, labels: LabelSet, where: str, *, exclusive: bool) -> Floats:
    """Read the probabilities of labels: {NAME: p}, or a prediction (see `_by_name`).

    Exclusive classes that are not named share the rest of 1 equally; other classes that are not
    named get 0.

    Returns:
        [L] float32, all NaN of a prediction for a text without words.

    Raises:
        DataError: it has another form, or an unknown label.
    """
    if _is_undecided(value) and not value.get("candidates"):
        return np.full(len(labels), np.nan, np.float32)
    given = _by_name(value)
    if given is None or (exclusive and not given):
        several = "" if exclusive else ', or {"labels": ["NAME", {"label": "NAME", "score": 0.9}]}'
        raise DataError(
            f"soft labels are {shorten(value)}",
            where=where,
            expected='an object such as {"NAME": 0.9}, or {"label": "NAME", "score": 0.9}'
            + several,
        )
    result = np.full(len(labels), np.nan, np.float32)
    for name, probability in given.items():
        if name not in labels:
            raise DataError(
                f"there is no label {shorten(name)}", where=where,
                expected=f"one of: {listing(labels.names)}",
            )  # fmt: skip
        result[labels.index(name)] = read_probability(probability, name, where)
    unnamed = np.isnan(result)
    named = float(result[~unnamed].sum())
    if exclusive and (named > 1.001 or (named == 0 and not unnamed.any())):
        raise DataError(f"the probabilities of classes sum to {named:g}", where=where, expected="1")
    rest = max(0.0, 1 - named) / unnamed.sum() if exclusive and unnamed.any() else 0.0
    result[unnamed] = rest
    return result / result.sum() if exclusive else result


def _is_undecided(value: Any) -> bool:
    """Return whether it is a prediction without a label; it may have candidates."""
    return isinstance(value, Mapping) and "label" in value and value["label"] is None


def _by_name(value: Any) -> Mapping[str, Any] | None:
    """Return the probabilities of soft labels by name, not yet checked.

    Args:
        value: a name; {NAME: p}; or a prediction's {"label": NAME, "score": p} or
            {"labels": [...]}, where candidates are the labels that do not reach their thresholds.

    Returns:
        None if it has another form.
    """
    if isinstance(value, str):
        return {value: 1.0}
    if not isinstance(value, Mapping):
        return None
    if isinstance(value.get("labels"), list):
        listed = [*_candidates(value), *value["labels"]]
    elif _is_undecided(value):
        listed = _candidates(value)
    elif isinstance(value.get("label"), str):
        listed = [value]
    else:
        return value
    pairs = [_name_and_score(one) for one in listed]
    found = dict(pair for pair in pairs if pair is not None)
    return None if None in pairs else found


def _candidates(prediction: Mapping[str, Any]) -> list[Any]:
    """Return a prediction's candidates; one without a name if they are no list."""
    found = prediction.get("candidates", [])
    return found if isinstance(found, list) else [None]


def _name_and_score(one: Any) -> tuple[str, Any] | None:
    """Return a label's name and probability, 1 where it has none; None if it is no label."""
    if isinstance(one, str):
        return one, 1.0
    if isinstance(one, Mapping) and isinstance(one.get("label"), str):
        return one["label"], one.get("score", 1.0)
    return None


def read_entities(value: Any, labels: LabelSet, text: str, words: Spans, where: str) -> Floats:
    """Read entities, each with a probability (`score`), or a prediction's `entities`.

    Words outside all of them have no entity, with certainty.

    Args:
        value: the entities.
        labels: BIO tags.
        text: the text.
        words: [W, 2] the characters of its words.
        where: its place, for messages.

    Returns:
        [W, L] float32, the probability of each word's tags.

    Raises:
        DataError: it is not a list of entities, or one of them is not valid.
    """
    entities = value.get("entities") if isinstance(value, Mapping) else value
    if not isinstance(entities, list):
        raise DataError(
            f"soft labels are {shorten(value)}", where=where,
            expected="a list of entities with start, end, label and score",
        )  # fmt: skip
    outside = labels.index(OUTSIDE)
    result = np.zeros((len(words), len(labels)), np.float32)
    result[:, outside] = 1.0
    spans = read_spans(entities, "entities", text, where)
    scores = {(one["start"], one["end"]): one.get("score", 1.0) for one in entities}
    ends = [span.end for span in spans]
    for word, tag in enumerate(word_tags(spans, words, labels)):
        if tag < 0 or tag == outside:
            continue
        span = spans[bisect_right(ends, words[word][0])]
        score = read_probability(scores[span.start, span.end], span.label, where)
        result[word, outside] = 1 - score
        result[word, tag] = score
    return result


def read_word_classes(value: Any, labels: LabelSet, text: str, words: Spans, where: str) -> Floats:
    """Read tokens, each with its class (`tag`) and perhaps a `score`, or a prediction's `tokens`.

    A word has the class of the token with which it shares its first characters; the other classes
    share the rest of 1 equally. If a word has no token, the targets of the whole text are unknown,
    as they are where a teacher does not read a word.

    Args:
        value: the tokens.
        labels: the classes.
        text, words, where: see `read_entities`.

    Returns:
        [W, L] float32, the probability of each word's classes; NaN if they are unknown.

    Raises:
        DataError: it is not a list of tokens, or one of them is not valid.
    """
    tokens = value.get("tokens") if isinstance(value, Mapping) else value
    if not isinstance(tokens, list):
        raise DataError(
            f"soft labels are {shorten(value)}", where=where,
            expected="a list of tokens with start, end and tag, for classes of words",
        )  # fmt: skip
    read = [_read_token(one, f"tokens[{i}]", labels, text, where) for i, one in enumerate(tokens)]
    read = sorted(one for one in read if one[2] >= 0)
    places = np.array([(start, end) for start, end, _, _ in read], np.int64).reshape(-1, 2)
    numbers, _ = word_of_each(words, places)
    if (numbers < 0).any():
        return np.full((len(words), len(labels)), np.nan, np.float32)
    tags = np.array([tag for _, _, tag, _ in read], np.int64)[numbers]
    scores = np.array([score for _, _, _, score in read], np.float32)[numbers]
    rest = (1 - scores) / max(1, len(labels) - 1)
    result: Floats = np.repeat(rest[:, None], len(labels), axis=1)
    result[np.arange(len(words)), tags] = scores
    return result


def _read_token(
    item: Any, field: str, labels: LabelSet, text: str, where: str
) -> tuple[int, int, int, float]:
    """Return a token's characters, the index of its class, and its probability.

    The index is -1 for `O` where that is no class: it stands for a token that no model read.
    """
    tag = item.get("tag") if isinstance(item, Mapping) else None
    start, end = (item.get("start"), item.get("end")) if isinstance(tag, str) else (None, None)
    if not isinstance(tag, str) or type(start) is not int or type(end) is not int:
        raise DataError(
            f"`{field}` of soft labels is {shorten(item)}",
            where=where,
            expected='an object such as {"start": 0, "end": 4, "tag": "NOUN"}',
        )
    if not 0 <= start < end <= len(text):
        raise DataError(
            f"`{field}` goes from {start} to {end}",
            where=where,
            expected=f"0 <= start < end <= {len(text)}, the characters of the text",
        )
    if tag not in labels and tag != OUTSIDE:
        raise DataError(
            f"there is no label {shorten(tag)}",
            where=where,
            expected=f"one of: {listing(labels.names)}",
        )
    score = read_probability(item.get("score", 1.0), tag, where)
    return start, end, labels.index(tag) if tag in labels else -1, score


def continued(soft: Floats, names: Sequence[str]) -> Floats:
    """Return probabilities of tags, [W, L], where no entity can begin: `B-x` counts as `I-x`."""
    result: Floats = soft.copy()
    for place, name in enumerate(names):
        if name.startswith("B-"):
            result[:, names.index(f"I-{name[2:]}")] += result[:, place]
            result[:, place] = 0.0
    return result
