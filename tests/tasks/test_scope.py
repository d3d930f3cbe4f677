"""Texts of unknown classes are recognised, with and without examples of such texts."""

from __future__ import annotations

import numpy as np

from manyheads.tasks import Scope
from manyheads.tasks.scope import fit_scope


def texts(
    rng: np.random.Generator, classes: int, count: int, centres: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings around the centres of the first classes, and logits of five classes."""
    gold = rng.integers(0, classes, count)
    embeddings = (centres[gold] + rng.normal(0, 0.3, (count, centres.shape[1]))).astype(np.float32)
    return embeddings, (4 * embeddings @ centres[:5].T).astype(np.float32), gold


def area(scope: Scope, known: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> float:
    """The AUROC: how often a known text has the higher probability."""
    one, two = (scope.probabilities(*some[:2]) for some in (known, other))
    return float((one[:, None] > two[None]).mean())


def test_texts_of_unknown_classes_are_less_probable_without_any_example() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (10, 16)) / 4
    embeddings, logits, gold = texts(rng, 5, 300, centres)
    strange, strange_logits, which = texts(rng, 10, 400, centres)
    other = strange[which >= 5], strange_logits[which >= 5]
    folds = rng.permutation(300) % 5
    scope = fit_scope("intent", embeddings, logits, gold, folds)
    assert scope is not None
    fresh = texts(rng, 5, 300, centres)
    assert area(scope, fresh, other) > 0.75
    assert ((scope.probabilities(*fresh[:2]) >= 0) & (scope.probabilities(*fresh[:2]) <= 1)).all()
    shown = fit_scope("intent", embeddings, logits, gold, folds, (other[0][:50], other[1][:50]))
    assert shown is not None
    assert area(shown, fresh, (other[0][50:], other[1][50:])) > 0.75


def test_examples_teach_where_texts_out_of_scope_lie() -> None:
    rng = np.random.default_rng(0)
    centres = np.pad(rng.normal(0, 1, (5, 15)) / 4, ((0, 0), (0, 1)))
    embeddings, logits, gold = texts(rng, 5, 300, centres)
    # As near to the classes as known texts, but for one direction in which these differ as well.
    other = texts(rng, 5, 200, centres + 0.6 * np.eye(16)[15])[0]
    strange = other, (4 * other @ centres.T).astype(np.float32)
    folds = rng.permutation(300) % 5
    fresh = texts(rng, 5, 300, centres)

    def found(count: int) -> float:
        shown = strange[0][:count], strange[1][:count]
        scope = fit_scope("intent", embeddings, logits, gold, folds, shown if count else None)
        assert scope is not None
        assert scope.direction.any() == (count >= 20)
        return area(scope, fresh, (strange[0][100:], strange[1][100:]))

    assert found(100) > max(found(0), found(5)) + 0.1


def test_with_few_records_or_classes_there_is_no_scope() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (5, 8))
    for classes, count in ((5, 30), (2, 100)):
        some = texts(rng, classes, count, centres)
        assert fit_scope("intent", *some, np.arange(count) % 5) is None


def test_a_class_without_examples_is_never_the_nearest() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (5, 8))
    embeddings, logits, gold = texts(rng, 4, 200, centres)
    scope = fit_scope("intent", embeddings, logits, gold, np.arange(200) % 5)
    assert scope is not None
    assert np.isnan(scope.centres[4]).all()
    assert np.isfinite(scope.probabilities(embeddings, logits)).all()
