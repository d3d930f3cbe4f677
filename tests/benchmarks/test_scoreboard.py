"""The scoreboard's Pareto front and picture."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from scoreboard import PUBLISHED, Row, front, picture

POINTS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1)


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] >= other[0] and one[1] >= other[1]


@given(POINTS)
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    kept = front(points)
    assert set(kept) == {one for one in points if not any(beats(other, one) for other in points)}
    assert kept == sorted(kept, reverse=True)


def test_the_picture_has_a_panel_for_each_metric_and_names_every_system(tmp_path: Path) -> None:
    rows = [
        Row("snips", "Manyheads, torch", 90, 500, {"accuracy": 0.98, "f1": 0.96, "frame": 0.9}),
        Row("snips", "model2vec, classes only", 30, 9000, {"accuracy": 0.96}),
        Row("wnut17", "Manyheads, torch", 90, 400, {"f1": 0.38}),
        *(row for row in PUBLISHED if row.data == "snips"),
    ]
    picture(rows, tmp_path / "board.svg")
    drawn = (tmp_path / "board.svg").read_text()
    assert drawn.count('id="axes_') == 4
    for text in ("snips: F1", "wnut17: F1", "model2vec, classes only", "Manyheads, torch"):
        assert f"<!-- {text} -->" in drawn
