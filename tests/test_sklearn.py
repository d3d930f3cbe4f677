"""The scikit-learn estimator works in scikit-learn's own machinery."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from manyheads import SentenceClassifier
from manyheads.errors import ConfigError, RequestError
from training_setup import encoder_folder, sentences

TEXTS = [" ".join(record["tokens"]) for record in sentences(40, 1)]
LABELS = np.array([text.endswith("?") for text in TEXTS])


def classifier(**changes: Any) -> SentenceClassifier:
    settings = {"max_length": 32, "threads": 1, "precision": "float32", "head_learning_rate": 1e-2}
    return SentenceClassifier(
        model_name=str(encoder_folder()), num_epochs=6, learning_rate=1e-3, batch_size=4,
        settings=settings, **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def fitted() -> SentenceClassifier:
    return classifier().fit(TEXTS, LABELS)


def test_classes_are_those_that_were_given(fitted: SentenceClassifier) -> None:
    assert fitted.classes_.tolist() == [False, True]
    assert fitted.predict(TEXTS).dtype == bool
    assert fitted.score(TEXTS, LABELS) > 0.9
    shares = fitted.predict_proba([*TEXTS, ""])
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    assert shares[-1].tolist() == [0.5, 0.5]


def test_a_pickled_classifier_predicts_the_same(fitted: SentenceClassifier) -> None:
    copy = pickle.loads(pickle.dumps(fitted))
    assert (copy.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()


def test_it_is_cross_validated_and_cloned() -> None:
    scores = cross_val_score(clone(classifier()), TEXTS, LABELS, cv=2)
    assert scores.shape == (2,)
    assert scores.min() > 0.7


def test_it_works_in_pipelines_and_on_a_column_of_a_table() -> None:
    frame = pd.DataFrame({"id": range(len(TEXTS)), "q": TEXTS})
    column = ColumnTransformer([("q", FunctionTransformer(), ["q"])])
    pipeline = make_pipeline(column, classifier()).fit(frame, LABELS)
    assert pipeline.score(frame, LABELS) > 0.9


@pytest.mark.parametrize(
    "check",
    [
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_estimator_repr",
        "check_valid_tag_types",
    ],
)
def test_it_passes_the_checks_of_estimators_that_need_no_numbers(check: str) -> None:
    getattr(estimator_checks, check)("SentenceClassifier", SentenceClassifier())


def test_check_estimator_passes_and_leaves_out_what_needs_a_table_of_numbers() -> None:
    with pytest.warns(SkipTestWarning, match="requires input"):
        found = estimator_checks.check_estimator(SentenceClassifier())
    assert {one["status"] for one in found} == {"passed"}


def test_other_input_than_texts_is_refused() -> None:
    with pytest.raises(RequestError, match=r"X has the shape \(2, 2\)"):
        classifier().fit(np.zeros((2, 2)), [0, 1])
    with pytest.raises(RequestError, match="2 texts and 1 classes"):
        classifier().fit(["a", "b"], [0])
    with pytest.raises(RequestError, match="X has no texts"):
        classifier().fit([], [])
    with pytest.raises(RequestError, match="text 2 of X is None; expected a string"):
        classifier().fit(["a", None], [0, 1])
    with pytest.raises(RequestError, match="X is one string"):
        classifier().fit("a", [0])
    with pytest.raises(NotFittedError):
        classifier().predict(["a"])


@pytest.mark.parametrize(
    ("name", "message"),
    [("a ", "the classes 'a' and 'a ' of y differ in nothing but"), (" ", "a class of y is ' '")],
)
def test_classes_without_names_of_their_own_are_refused(name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        SentenceClassifier().fit(["one", "two"] * 5, ["a", name] * 5)


def test_a_fit_that_fails_leaves_the_classifier_as_it_was(fitted: SentenceClassifier) -> None:
    copy = pickle.loads(pickle.dumps(fitted))
    copy.set_params(settings={"max_length": 0})
    with pytest.raises(ConfigError, match="max_length"):
        copy.fit(["put on jazz", "turn it off"], ["play", "stop"])
    assert copy.classes_.tolist() == [False, True]
    assert (copy.predict(TEXTS) == fitted.predict(TEXTS)).all()
    first = classifier().set_params(settings={"max_length": 0})
    with pytest.raises(ConfigError, match="max_length"):
        first.fit(TEXTS, LABELS)
    with pytest.raises(NotFittedError):
        first.predict(TEXTS)


@pytest.mark.parametrize(
    ("y", "found"),
    [
        (["a", None], "label 2 of y is None; expected a class for each text"),
        (["a", float("nan")], "label 2 of y is nan"),
        (["a", np.float32("nan")], "label 2 of y is nan"),
        (np.array([float("nan"), 1.0]), "label 1 of y is nan"),
        (pd.Series(["a", None], dtype="category"), "label 2 of y is nan"),
        (pd.array([1, None], dtype="Int64"), "label 2 of y is <NA>"),
        ([["a", "b"], ["c", "d"]], r"y should be a 1d array, got an array of shape \(2, 2\)"),
        ("a", r"y should be a 1d array, got an array of shape \(\)"),
    ],
)
def test_missing_classes_and_several_columns_are_refused(y: Any, found: str) -> None:
    with pytest.raises(RequestError, match=found):
        classifier().fit(["put on jazz", "turn it off"], y)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("seed", "an argument of the classifier.*SentenceClassifier\\(seed=...\\)"),
        ("batch_size", "an argument of the classifier.*SentenceClassifier\\(batch_size=...\\)"),
        ("tasks", "`fit` sets itself; expected other fields.*Leave out `tasks`"),
        ("save_dir", "`fit` sets itself"),
    ],
)
def test_settings_that_are_set_elsewhere_are_refused(name: str, fix: str) -> None:
    twice = SentenceClassifier(settings={"threads": 1, name: 3})
    with pytest.raises(RequestError, match=f"`settings` has `{name}`, which (is )?{fix}"):
        twice.fit(TEXTS, LABELS)
