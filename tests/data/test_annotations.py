"""Annotations that are not accepted, and classes that are one or several."""

from __future__ import annotations

from pathlib import Path

from hypothesis import settings

from files import lines, message, read, unread

QUICK = settings(deadline=None, max_examples=40)


def test_a_rejected_answer_to_a_yes_or_no_question_means_that_the_label_does_not_apply(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.jsonl"
    asked = [("a", "accept"), ("b", "reject"), ("c", "ignore")]
    path.write_text(lines([{"text": t, "label": "DOCS", "answer": a} for t, a in asked]))
    assert read(path) == [{"text": "a", "labels": ["DOCS"]}, {"text": "b", "labels": []}]
    assert unread(path) == {"records whose answer is 'ignore'": 1}


def test_rejected_answers_about_several_labels_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    asked = [("a", "X", "accept"), ("b", "Y", "reject"), ("c", "Y", "accept")]
    path.write_text(lines([{"text": t, "label": n, "answer": a} for t, n, a in asked]))
    assert read(path) == [{"text": "a", "label": "X"}, {"text": "c", "label": "Y"}]
    assert unread(path) == {"records whose answer is 'reject'": 1}
    path.write_text(lines([{"text": "a", "label": None, "answer": "reject"}]))
    assert "no record in it, only records whose answer is 'reject' (1)" in message(path)


def test_lists_of_one_class_are_a_class(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(lines([{"text": "a", "label": ["x"]}, {"text": "b", "label": []}]))
    assert read(path) == [{"text": "a", "label": "x"}, {"text": "b", "label": None}]
    path.write_text(lines([{"text": "a", "label": ["x", "y"]}, {"text": "b", "label": []}]))
    assert read(path) == [{"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": []}]
    path.write_text(lines([{"text": "Ada", "label": [[0, 3, "PER"]]}, {"text": "b", "label": []}]))
    assert [row["entities"] for row in read(path)] == [
        [{"start": 0, "end": 3, "label": "PER"}], [],
    ]  # fmt: skip


def test_classes_with_a_score_of_at_least_a_half_apply(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(
        lines(
            [{"text": "a", "cats": {"X": 1, "Y": 0.0}}, {"text": "b", "cats": {"X": 0, "Y": 0.7}}]
        )
    )
    assert read(path) == [{"text": "a", "label": "X"}, {"text": "b", "label": "Y"}]
    path.write_text(lines([{"text": "a", "cats": {"X": 1, "Y": 1}}]))
    assert read(path) == [{"text": "a", "labels": ["X", "Y"]}]
