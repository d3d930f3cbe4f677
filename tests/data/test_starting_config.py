"""The settings of a run that is given only data files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manyheads.data.starting_config import starting_config


@pytest.mark.parametrize(
    ("records", "rates"), [(10, (2e-5, 2e-4)), (80, (5.7e-5, 5.7e-4)), (1000, (1e-4, 1e-3))]
)
def test_an_encoder_is_tuned_more_slowly_with_few_records_per_class(
    tmp_path: Path, records: int, rates: tuple[float, float]
) -> None:
    path = tmp_path / "data.jsonl"
    rows = [{"text": f"sentence number {i}", "topic": "ab"[i % 2]} for i in range(records)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config, _ = starting_config([str(path)])
    assert (config.learning_rate, config.head_learning_rate) == pytest.approx(rates)
    assert starting_config([str(path)], {"learning_rate": 0.1})[0].learning_rate == 0.1


def test_a_tagger_starts_at_higher_rates_than_the_usual_ones(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    row = {"tokens": ["to", "Paris"], "ner": ["O", "B-place"]}
    path.write_text(20 * (json.dumps(row) + "\n"), encoding="utf-8")
    config, _ = starting_config([str(path)])
    assert (config.learning_rate, config.head_learning_rate) == pytest.approx((2e-4, 5e-3))
