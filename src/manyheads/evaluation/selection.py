"""The texts of a pool that are most worth labelling next: uncertain ones, unlike each other.

Axes: N texts, E embedding, K texts to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.data.readers import Layout, Row, read_rows
from manyheads.data.records import SECOND_TEXT, check_text, read_text
from manyheads.errors import RequestError, counted, option
from manyheads.inference import LoadedModel, TextPair
from manyheads.tasks import Prediction, kind_of
from manyheads.tasks.html import table
from manyheads.tasks.metrics import directions

Floats = NDArray[np.float32]

CANDIDATES = 10
"""The most uncertain texts among which is chosen, as a multiple of the number wanted."""
_ROUNDS = 8
_CHUNK = 2048


@dataclass(frozen=True, slots=True)
class Chosen:
    """A text or a pair of texts to label, and how uncertain the model is about it."""

    text: str
    where: str
    uncertainty: float
    """1 minus the lowest score among the answers of its tasks."""
    text2: str | None = None
    """The second text of a pair, if a task of pairs counts."""


@dataclass(frozen=True)
class Selection:
    """The texts that are most worth labelling."""

    pool: str
    texts: int
    """Different texts in the pool; different pairs, if a task of pairs counts."""
    chosen: tuple[Chosen, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.chosen)

    def _repr_html_(self) -> str:
        """Return a table for notebooks: a row for each text."""
        names = ["text", *([SECOND_TEXT] if any(one.text2 for one in self.chosen) else [])]
        rows = [
            [*(getattr(one, name) or "" for name in names), f"{one.uncertainty:.2f}", one.where]
            for one in self.chosen
        ]
        title = f"{counted(len(self), 'text')} of {self.texts:,} in {self.pool}"
        return table(title, [*names, "uncertainty", "where"], rows)

    def to_json(self) -> dict[str, Any]:
        """Return the selection as values of JSON."""
        return asdict(self)

    def records(self) -> list[dict[str, Any]]:
        """Return the texts as records to label."""
        return [
            {
                "text": one.text,
                **({} if one.text2 is None else {SECOND_TEXT: one.text2}),
                "uncertainty": one.uncertainty,
            }
            for one in self.chosen
        ]


def select(
    loaded: LoadedModel,
    pool: str,
    count: int,
    *,
    tasks: Sequence[str] | None = None,
    layout: Layout | None = None,
    seed: int = 0,
    advance: Callable[[int], None] = lambda number: None,
) -> Selection:
    """Choose the texts of a pool to label next.

    Of the most uncertain texts, ten times as many as are wanted, the most representative are
    chosen: their embeddings make clusters, weighted by uncertainty, and
    each cluster gives the text nearest to its centre (Zhdanov 2019, "Diverse mini-batch active
    learning"). The second texts of pairs are read if one of the tasks is of pairs.

    Args:
        loaded: the model.
        pool: texts or pairs of texts, labelled or not; labels are not read.
        count: how many to choose.
        tasks: the tasks whose answers count; default, all.
        layout: how the pool is laid out.
        seed: determines where the clusters begin.
        advance: takes the number of texts that were read since the last call.

    Raises:
        DataError: the pool cannot be read.
        RequestError: a task is unknown, or the pool has no more texts than are wanted.
    """
    pairs = any(
        kind_of(spec.kind).pairs
        for spec in loaded.predictor.specs
        if tasks is None or spec.name in tasks
    )
    places = _places(pool, layout, pairs)
    texts = list(places)
    if len(texts) <= count:
        raise RequestError(
            f"the pool has {counted(len(texts), 'different text')}, and {count:,} are to be chosen",
            where=pool,
            expected="more texts than are chosen",
            fix=f"Label all of them, or name a smaller {option('--count')}.",
        )
    found = loaded.predictor.predict_stream(texts, tasks=tasks, embed=True)
    unsure, vectors = _measured(found, len(texts), pairs, advance)
    rows = spread_rows(vectors, unsure, count, seed)
    chosen = tuple(_chosen(texts[i], places[texts[i]], round(float(unsure[i]), 4)) for i in rows)
    return Selection(pool, len(texts), chosen)


def _places(pool: str, layout: Layout | None, pairs: bool) -> dict[str | TextPair, str]:
    """Return the different texts of a pool, each with its first place."""
    places: dict[str | TextPair, str] = {}
    for row in read_rows(pool, layout=layout, needs_labels=False):
        places.setdefault(_input(row, pairs), row.where)
    return places


def _measured(
    predictions: Iterable[Prediction], count: int, pairs: bool, advance: Callable[[int], None]
) -> tuple[NDArray[np.float64], Floats]:
    """Return the uncertainty of each of `count` predictions, [N], and its embedding, [N, E]."""
    unsure = np.empty(count, np.float64)
    first: list[Floats | None] = []
    second: list[Floats | None] = []
    for i, prediction in enumerate(predictions):
        unsure[i] = uncertainty(prediction)
        first.append(prediction.embedding)
        second.append(prediction.embedding2)
        advance(1)
    # An answer without a score, such as no entity, counts as an average one.
    known = unsure[~np.isnan(unsure)]
    unsure[np.isnan(unsure)] = np.median(known) if len(known) else 1.0
    both = (first, second) if pairs else (first,)
    return unsure, np.concatenate([_stacked(one) for one in both], axis=1)


def _input(row: Row, pairs: bool) -> str | TextPair:
    """Return the text of a row; with `pairs` and a second text, both."""
    text, second = read_text(row)[0], row.fields.get(SECOND_TEXT)
    if not pairs or second is None:
        return text
    return TextPair(text, check_text(second, SECOND_TEXT, row.where))


def _chosen(given: str | TextPair, where: str, unsure: float) -> Chosen:
    text, second = (given, None) if isinstance(given, str) else given
    return Chosen(text, where, unsure, second)


def uncertainty(prediction: Prediction) -> float:
    """Return 1 minus the least score of a prediction's answers; NaN without any score."""
    scores = [score for result in prediction.results.values() for score in result.scores()]
    return 1.0 - min(scores) if scores else float("nan")


def _stacked(vectors: Sequence[Floats | None]) -> Floats:
    """Return embeddings as one array [N, E]; zeros where there is no text, or one without words."""
    size = next((len(one) for one in vectors if one is not None), 1)
    none = np.zeros(size, np.float32)
    return np.stack([none if one is None else np.asarray(one, np.float32) for one in vectors])


def spread_rows(vectors: Floats, weights: NDArray[np.float64], count: int, seed: int) -> list[int]:
    """Choose rows of large weight that represent the others of large weight.

    Args:
        vectors: [N, E].
        weights: [N] positive.
        count: K, less than N.
        seed: determines where the clusters begin.

    Returns:
        The chosen rows, those of the largest weight first.
    """
    rows = np.argsort(-weights, kind="stable")[: CANDIDATES * count]
    points = directions(vectors[rows]).astype(np.float64)
    heavy = np.maximum(weights[rows], 1e-3)
    centres = _centres(points, heavy, count, np.random.default_rng(seed))
    near = points @ centres.T
    cluster = near.argmax(axis=1)
    taken: dict[int, None] = {}
    for number in range(len(centres)):
        members = np.flatnonzero(cluster == number)
        if len(members):
            taken[int(members[near[members, number].argmax()])] = None
    # A cluster may be empty; then the most uncertain of the others fill up.
    for i in range(len(rows)):
        if len(taken) == count:
            break
        taken.setdefault(i)
    return [int(rows[i]) for i in sorted(taken)]


def _centres(
    points: NDArray[np.float64], weights: NDArray[np.float64], count: int,
    generator: np.random.Generator,
) -> NDArray[np.float64]:  # fmt: skip
    """Return the centres of weighted k-means by cosine, begun as k-means++ (Arthur 2007)."""
    first = int(generator.choice(len(points), p=weights / weights.sum()))
    chosen = [first]
    distance = np.maximum(1 - points @ points[first], 0)
    while len(chosen) < count:
        shares = distance * weights
        if not shares.sum():
            break
        new = int(generator.choice(len(points), p=shares / shares.sum()))
        chosen.append(new)
        distance = np.minimum(distance, np.maximum(1 - points @ points[new], 0))
    centres = points[chosen]
    for _ in range(_ROUNDS):
        cluster = (points @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, cluster, points * weights[:, None])
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 0, sums / np.maximum(norms, 1e-12), centres)
    return centres
