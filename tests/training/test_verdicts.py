"""The verdict of a comparison on each task, in numbers and words."""

from __future__ import annotations

import json

import numpy as np
import pytest

from manyheads.evaluation import Ratio, mean_interval, paired_bootstrap
from manyheads.training import Times, Verdict

TIMES = Times({"intent": 1.0, "ner": 1.0}, 1.06)


def verdict(
    alone: list[float], together: list[float], *, metric: str = "f1", sure: bool = True
) -> Verdict:
    """A verdict on metrics by seed; with `sure`, the sentences leave no doubt."""
    change = float(np.mean(together) - np.mean(alone))
    sentences = 2_000
    right = np.zeros((2, sentences), bool)
    right[0, : sentences // 2] = True
    right[1] = right[0]
    if sure:
        flipped = slice(0, 200) if change < 0 else slice(sentences // 2, sentences // 2 + 200)
        right[1, flipped] = change > 0
    pair = paired_bootstrap(Ratio.accuracy(right[0]), Ratio.accuracy(right[1]), resamples=500)
    differences = [b - a for a, b in zip(alone, together, strict=True)]
    return Verdict("ner", metric, tuple(alone), tuple(together), mean_interval(differences), pair)


@pytest.mark.parametrize(
    ("one", "outcome", "words"),
    [
        (
            verdict([0.800, 0.802, 0.801], [0.820, 0.821, 0.819]),
            "better",
            "joint training gains ner 1.9 F1 [1.7, 2.1], which is more than noise, and saves 47 % "
            "of the inference time",
        ),
        (
            verdict([0.820, 0.821, 0.819], [0.800, 0.802, 0.801], metric="accuracy"),
            "worse",
            "joint training costs ner 1.9 accuracy [-2.1, -1.7], which is more than noise, and "
            "saves 47 % of the inference time",
        ),
        (
            verdict([0.800, 0.802, 0.801], [0.799, 0.792, 0.802]),
            "noise",
            "joint training costs ner 0.3 F1 [-1.8, 1.1], which is within noise, and saves 47 % "
            "of the inference time",
        ),
        (
            # The seeds agree, but the sentences are too alike to tell.
            verdict([0.800, 0.802, 0.801], [0.820, 0.821, 0.819], sure=False),
            "noise",
            "joint training gains ner 1.9 F1 [1.7, 2.1], which is within noise, and saves 47 % "
            "of the inference time",
        ),
        (
            verdict([0.8, 0.8], [0.8, 0.8], sure=False),
            "noise",
            "joint training changes ner by 0.0 F1 [0.0, 0.0], which is within noise, and saves "
            "47 % of the inference time",
        ),
    ],
)
def test_a_verdict_is_described_in_words(one: Verdict, outcome: str, words: str) -> None:
    assert one.outcome == outcome
    assert one.words(TIMES) == words


def test_one_seed_is_judged_by_the_sentences_and_described_so() -> None:
    one = verdict([0.80], [0.90])
    assert one.seeds.low is None
    assert one.outcome == "better"
    assert "which is more than noise as far as one seed tells" in one.words(TIMES)


def test_one_seed_without_sentences_proves_nothing() -> None:
    one = Verdict("pairs", "spearman", (0.5,), (0.7,), mean_interval([0.2]), None)
    assert one.outcome == "noise"
    assert one.words(TIMES).startswith(
        "joint training gains pairs 20.0 rank correlation, which a single seed cannot tell from"
    )


@pytest.mark.parametrize(
    ("together", "words"),
    [
        (1.0, "and saves 50 % of the inference time"),
        (2.004, "and takes as long at inference"),
        (2.5, "and takes 25 % more inference time"),
    ],
)
def test_inference_time_is_described_as_saved_or_added(together: float, words: str) -> None:
    times = Times({"intent": 1.5, "ner": 0.5}, together)
    assert verdict([0.8, 0.8], [0.8, 0.9]).words(times).endswith(words)


def test_a_verdict_is_json() -> None:
    one = verdict([0.800, 0.802, 0.801], [0.820, 0.821, 0.819])
    value = json.loads(json.dumps(one.to_json(TIMES)))
    assert value["verdict"] == "better"
    assert value["difference"] == pytest.approx(0.019)
    assert value["seeds"]["count"] == 3
    assert value["sentences"]["sentences"] == 2_000
    assert value["words"].startswith("joint training gains ner")
    assert json.loads(json.dumps(TIMES.to_json()))["saved"] == pytest.approx(0.47)
