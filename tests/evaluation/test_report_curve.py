"""The learning curve by number of records is measured on shares, fitted and extrapolated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyheads.api import report
from manyheads.config import make_config
from manyheads.data.records import Record
from manyheads.errors import DataError, RequestError
from manyheads.evaluation.report.curve import Measured, learning_curve
from manyheads.tasks import LabelSet
from manyheads.tasks.metrics import Ratio
from manyheads.training.learning_curve import measure_curves, share_sizes
from training_setup import run, sentences, write_records

SIZES = (50, 100, 200, 400, 800)


def measured(scores: Any, noise: float = 0.0, sentences: int = 0) -> Measured:
    """Scores of three seeds, and with `sentences` the ratios that they are."""
    random = np.random.default_rng(0)
    values = [[float(score + noise * random.normal()) for _ in range(3)] for score in scores]
    ratios = None
    if sentences:
        ratios = tuple(
            tuple(Ratio.accuracy((np.arange(sentences) < v * sentences).tolist()) for v in some)
            for some in values
        )
    return Measured("accuracy", SIZES, tuple(map(tuple, values)), ratios)


def law(size: float) -> float:
    return 0.9 - 0.2 * (size / 800) ** -0.5


def test_scores_of_a_power_law_are_extrapolated_by_it() -> None:
    found = learning_curve("intent", measured([law(n) for n in SIZES]))
    assert [p.records for p in found.further] == [1600, 3200]
    for point in found.further:
        assert point.score == pytest.approx(law(point.records), abs=0.003)
    assert found.gain == pytest.approx(law(1600) - law(800), abs=0.003)
    assert found.check is not None
    assert found.check.score == pytest.approx(law(800), abs=0.003)
    assert len(found.in_words()) == 1


def test_the_smallest_sizes_do_not_bend_the_law() -> None:
    scores = [0.05, *[law(n) for n in SIZES[1:]]]
    assert learning_curve("a", measured(scores)).further[0].score == pytest.approx(
        law(1600), abs=0.003
    )


def test_intervals_widen_with_noise_with_few_sentences_and_further_out() -> None:
    scores = [law(n) for n in SIZES]
    sure = learning_curve("a", measured(scores, 0.001))
    unsure = learning_curve("a", measured(scores, 0.02))
    few = learning_curve("a", measured(scores, 0.001, sentences=100))
    widths = {n: c.further[0].high - c.further[0].low for n, c in enumerate((sure, unsure, few))}
    assert widths[0] < widths[1]
    assert widths[0] < widths[2]
    for curve in (unsure, few):
        near, far = curve.further
        last = curve.points[-1]
        assert last.low <= last.score <= last.high
        assert far.high - far.low > near.high - near.low
        assert curve.gain_low <= curve.gain <= curve.gain_high


def test_a_flat_curve_promises_nothing_and_no_curve_passes_the_top() -> None:
    flat = learning_curve("a", measured([0.8] * 5, 0.01))
    assert flat.gain_low == pytest.approx(0.0, abs=1e-6)
    steep = learning_curve("a", measured([0.2, 0.4, 0.6, 0.8, 0.99]))
    assert steep.further[-1].high <= 1.0


def test_a_law_that_misses_the_last_size_comes_with_a_warning() -> None:
    found = learning_curve("a", measured([0.3, 0.4, 0.45, 0.48, 0.8], 0.001))
    assert "Do not rely on that" in found.in_words()[0]


def test_shares_are_halves_of_the_records() -> None:
    assert share_sizes(1000) == [31, 62, 125, 250, 500, 1000]
    assert share_sizes(64) == [16, 32, 64]
    assert share_sizes(15) == []


def test_too_few_records_or_none_that_answer_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = make_config({"tasks": {"a": {"kind": "similarity"}, "b": {"kind": "classification"}}})
    records = [Record(f"text {i}", None, {"b": "yes"}, "") for i in range(63)]
    with pytest.raises(RequestError, match="a has no head that can be trained"):
        measure_curves(tasks, {"a": LabelSet(())}, records, [])
    with pytest.raises(DataError, match=r"^62 training records .*expected at least 64"):
        measure_curves(tasks, {"b": LabelSet(("no", "yes"))}, records, records[:1])
    # Of more records as many as possible are used, spread evenly.
    monkeypatch.setattr("manyheads.training.learning_curve.MOST", 61)
    with pytest.raises(DataError, match=r"^61 training records "):
        measure_curves(tasks, {"b": LabelSet(("no", "yes"))}, records, records[:1])


def test_a_report_measures_the_curve_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyheads.training.frozen_heads.STEPS", 20)
    rows = sentences(64, 1)
    for i, row in enumerate(rows):
        row["tokens"] = [*row["tokens"], f"x{i}"]
        row["ner"] = [*row["ner"], "O"]
    write_records(tmp_path / "train.jsonl", rows)
    result, _ = run(tmp_path, num_epochs=1)
    found = report(result.save_dir, curve=True, progress=False)
    assert [curve.name for curve in found.curves] == ["classification", "ner"]
    for curve in found.curves:
        assert [p.records for p in curve.points] == [16, 32, 64]
        assert (curve.seeds, curve.check) == (3, None)
        for point in curve.points:
            assert point.low - 1e-9 <= point.score <= point.high + 1e-9 <= 1 + 1e-6
    assert "on the curve of heads on the frozen encoder" in found.verdict[-1]
    few = report(result.save_dir, rows[:20], curve=True, progress=False)
    assert few.curves == ()
    assert any("the learning curve is not measured: 44 training" in note for note in few.notes)
