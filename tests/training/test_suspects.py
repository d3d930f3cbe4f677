"""Labels that are likely wrong are found, shown, written for review and corrected in a new file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyheads
from manyheads.cli import main
from manyheads.config import make_config
from manyheads.data.readers import read_rows
from manyheads.data.suspects import (
    Suspect,
    Suspects,
    read_suspects,
    write_fixed,
    write_label_studio,
    write_suspects,
)
from manyheads.errors import DataError, RequestError
from manyheads.tasks import Scheme, Span, TagSet, TaskSpec, kind_of
from manyheads.tasks.labels import PartlyLabelled, unlabelled_words
from manyheads.tasks.span_suspicion import span_suspicions
from manyheads.tasks.surfaces import Surfaces
from manyheads.tasks.suspicion import MISSING, Suspicion
from manyheads.training.suspects import find_suspects
from manyheads.training.suspects.folds import Folding, fold_of
from manyheads.training.suspects.neighbours import neighbour_shares
from manyheads.training.suspects.ranking import ranked
from manyheads.training.suspects.search import _mean_log_odds
from training_setup import encoder_folder, sentences, write_records

QUICK = Folding(folds=3, epochs=6, steps=250)
TASKS = {
    "classification": {"kind": "classification", "hidden": 32},
    "ner": {"kind": "tagging"},
}
WORDS = [(0, 4), (5, 10), (11, 13), (14, 19), (20, 23)]
TEXT = "anna lives in paris now"


def planted(folder: Path) -> tuple[Path, dict[int, str]]:
    """Records with four wrong labels, and the error in each."""
    records = sentences(200, 3)
    records[4]["label"] = "question" if records[4]["label"] == "statement" else "statement"
    wrong: dict[int, str] = {5: "wrong class"}
    for place, tag, error in ((10, "B-X", "wrong type"), (20, "O", "missing")):
        at = next(i for i, one in enumerate(records[place]["ner"]) if one != "O")
        other = "B-LOC" if records[place]["ner"][at] == "B-PER" else "B-PER"
        records[place]["ner"][at] = other if tag == "B-X" else tag
        wrong[place + 1] = error
    at = records[30]["ner"].index("O")
    records[30]["ner"][at] = "B-PER"
    wrong[31] = "superfluous"
    return write_records(folder / "data.jsonl", records), wrong


class Shown:
    """Counts the progress."""

    records = 0

    def advance(self, count: int = 1) -> None:
        """Add some records."""
        self.records += count


def config(**changes: Any) -> Any:
    values = {"model_name": str(encoder_folder()), "threads": 1, "precision": "float32"}
    return make_config({**values, "tasks": TASKS, **changes})


def test_planted_labels_are_found_with_their_proposals_and_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The vectors of the tiny encoder are too short for dropout of 0.4.
    monkeypatch.setattr("manyheads.training.suspects.words.DROPOUT", 0.0)
    path, wrong = planted(tmp_path)
    shown = Shown()
    found = find_suspects(
        str(path), config(), count=40, folding=QUICK, progress=lambda total: nullcontext(shown)
    )
    assert shown.records == 200
    tasks = ("classification", "ner")
    firsts = [[one for one in found if one.task == task] for task in tasks]
    first = [one for some in firsts for one in some[:8] if wrong.get(one.record) == one.error]
    assert len(first) == 4, [(one.record, one.error, one.score) for one in found]
    assert found.records == 200
    before = path.read_bytes()
    fixed = tmp_path / "fixed.jsonl"
    assert write_fixed(str(path), fixed, first, config().tasks) == 4
    assert path.read_bytes() == before
    assert [dict(row.fields) for row in read_rows(fixed)] == sentences(200, 3)


def test_folds_do_not_depend_on_the_order_of_the_records() -> None:
    keys = [f"text {i % 40}" for i in range(60)]
    folds = fold_of(keys, 5, 0)
    backwards = fold_of(keys[::-1], 5, 0)[::-1]
    assert np.array_equal(folds, backwards)
    assert np.array_equal(folds[:20], folds[40:])  # copies of a text are together
    assert np.bincount(fold_of(keys[:40], 5, 0)).tolist() == [8] * 5
    assert not np.array_equal(folds, fold_of(keys, 5, 1))


def test_neighbours_vote_without_the_record_itself() -> None:
    vectors = np.array([[1, 0.1], [1, 0.2], [1, 0.3], [1, 0.15]], np.float32)
    targets = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    shares = neighbour_shares(vectors, targets, np.array([True, True, True, False]))
    assert shares[2, 0] > 0.9  # its own label does not count
    assert shares[0].tolist() == pytest.approx([0.5, 0.5], abs=0.1)  # one neighbour of each
    assert shares[3, 0] > 0.6  # a record without a label has neighbours, and is none


@dataclass(frozen=True)
class Read:
    text: str = TEXT
    words: Sequence[tuple[int, int]] = tuple(WORDS)
    tokens: None = None


def suspicions(
    given: Sequence[Span], logs: Any, words: Sequence[tuple[int, int]], units: Any
) -> list[Suspicion]:
    labels, text = TagSet.of_types(["LOC", "PER"]), Read(TEXT, words)
    elsewhere = Surfaces(labels.types, [given], [text]).elsewhere(0)
    return span_suspicions(labels, given, text, units, logs, elsewhere)


def test_heads_and_neighbours_are_averaged_by_their_log_odds() -> None:
    heads = np.log(np.array([[0.9, 0.1], [0.99, 0.01]], np.float32))
    shares = np.array([[0.1, 0.9], [0.5, 0.5]], np.float32)
    mean = np.exp(_mean_log_odds(heads, shares))
    odds = np.sqrt(99)
    assert mean == pytest.approx(
        np.array([[0.5, 0.5], [odds, 1.0]]) / [[1.0], [1 + odds]], abs=1e-3
    )


def logs(*tags: str, surely: float = 0.97) -> Any:
    """Log probabilities of a model that is certain of these tags for the words of `TEXT`."""
    labels = TagSet.of_types(["LOC", "PER"])
    rest = (1 - surely) / (len(labels) - 1)
    table = np.full((len(tags), len(labels)), np.log(rest), np.float32)
    for i, tag in enumerate(tags):
        table[i, labels.index(tag)] = np.log(surely)
    return table


@pytest.mark.parametrize(
    ("given", "error", "proposed"),
    [
        ([Span(0, 4, "LOC"), Span(14, 19, "LOC")], "wrong type", (0, 4, "PER")),
        ([Span(0, 10, "PER"), Span(14, 19, "LOC")], "wrong border", (0, 4, "PER")),
        ([Span(0, 10, "LOC"), Span(14, 19, "LOC")], "wrong type and border", (0, 4, "PER")),
        ([Span(14, 19, "LOC")], "missing", (0, 4, "PER")),
        ([Span(0, 4, "PER"), Span(14, 19, "LOC"), Span(20, 23, "LOC")], "superfluous", None),
    ],
)
def test_each_kind_of_wrong_entity_gets_its_name_and_proposal(
    given: list[Span], error: str, proposed: tuple[int, int, str] | None
) -> None:
    found = suspicions(given, logs("B-PER", "O", "O", "B-LOC", "O"), WORDS, WORDS)
    likely = [one for one in found if one.score > 0]
    assert [one.error for one in likely] == [error]
    expected = (
        None if proposed is None else dict(zip(("start", "end", "label"), proposed, strict=True))
    )
    assert likely[0].proposed == expected


def test_borders_are_those_of_the_users_tokens() -> None:
    """A proposal never splits a token, such as `@anna`, that the model reads as two words."""
    words, tokens = [(0, 1), (1, 5), (6, 11)], [(0, 5), (6, 11)]
    [one] = suspicions([Span(0, 11, "PER")], logs("B-PER", "I-PER", "O"), words, tokens)
    assert (one.error, one.proposed) == ("wrong border", {"start": 0, "end": 5, "label": "PER"})
    [same] = suspicions([Span(0, 5, "PER")], logs("O", "B-PER", "O"), words, tokens)
    assert same.error != "wrong border"


def test_words_are_evidence_by_how_other_records_label_them() -> None:
    texts = [Read("Paris is big", ((0, 5), (6, 8), (9, 12)))] * 4
    given = [Span(0, 5, "LOC")]
    counted = Surfaces(["LOC", "PER"], [given, given, [Span(0, 5, "PER")], []], texts)
    same, other, free, *_ = counted.elsewhere(0).of_entity(texts[0], 0, 5, "LOC")
    assert np.expm1([same, other, free]).tolist() == pytest.approx([1, 1, 1])
    odds, count = counted.elsewhere(3).of_word(texts[0], 0)
    assert (np.exp(odds), np.expm1(count)) == pytest.approx((3.05 / 3.5, 3))
    assert (
        counted.elsewhere(0).of_word(texts[0], 1)[0] < counted.elsewhere(0).of_word(texts[0], 0)[0]
    )


def test_of_proposals_that_exclude_each_other_the_likeliest_stays() -> None:
    """Three words of one entity are labelled as two: both labels would grow over the third."""
    spec = TaskSpec("ner", "tagging", TagSet.of_types(["X"]).names, Scheme.BIO, "linear")
    generator = np.random.default_rng(0)
    text = Read("a b c", ((0, 1), (2, 3), (4, 5)))
    labels = [(Span(0, 1, "X"), Span(4, 5, "X"))] * 40
    shares = generator.dirichlet(np.ones(3), (40, 3)).astype(np.float32)
    found = ranked(spec, labels, [text] * 40, list(np.log(shares)), 0)
    assert any(one.error == MISSING for some in found for one in some)
    for some in found:
        places = sorted((min(one.regions)[0], max(end for _, end in one.regions)) for one in some)
        assert all(end <= start for (_, end), (start, _) in pairwise(places))
        assert [one.score for one in some] == sorted((one.score for one in some), reverse=True)


def test_a_class_is_as_suspect_as_all_others_together_are_likely() -> None:
    kind, text = kind_of("classification"), Read()
    spec = TaskSpec("intent", "classification", ("a", "b", "c"))
    logs = np.log(np.array([0.4, 0.35, 0.25], np.float32))
    [one] = kind.suspicions(spec, "a", text, logs, None)
    assert (one.given, one.proposed) == ("a", "b")
    assert one.score == pytest.approx(np.log(0.6 / 0.4), abs=1e-5)


def test_scores_of_classes_assume_that_few_labels_are_wrong() -> None:
    """A model that is unsure does not make labels suspect that are usually right."""
    spec = TaskSpec("intent", "classification", ("a", "b"))
    logs = list(np.log(np.array([[0.4, 0.6], [0.04, 0.96]], np.float32)))
    [[unsure], [sure]] = ranked(spec, ["a", "a"], [Read(), Read()], logs, 0)
    assert unsure.score == pytest.approx(np.log(0.6 / 0.4 * 0.05 / 0.95), abs=1e-5)
    assert unsure.score < 0 < sure.score


def test_multilabel_classes_are_missing_or_superfluous() -> None:
    kind = kind_of("multilabel")
    spec = TaskSpec("topics", "multilabel", ("a", "b"), threshold=0.5)
    text: Any = None
    found = kind.suspicions(spec, ("a",), text, np.log(np.array([0.1, 0.9], np.float32)), None)
    assert [(one.error, one.given, one.proposed) for one in found] == [
        ("superfluous", "a", None),
        ("missing", None, "b"),
    ]
    assert all(one.score == pytest.approx(np.log(9), abs=1e-3) for one in found)
    assert kind.corrected(("a",), "a", None) == ()
    assert kind.corrected(("a",), None, "b") == ("a", "b")


def suspect(**changes: Any) -> Suspect:
    values = {
        "record": 1, "where": "", "text": TEXT, "task": "ner", "error": "wrong type", "score": 1.0,
        "given": {"start": 0, "end": 4, "label": "LOC"},
        "proposed": {"start": 0, "end": 4, "label": "PER"},
    }  # fmt: skip
    return Suspect(**{**values, **changes})


def test_notebooks_show_suspects_as_a_table_with_escaped_text() -> None:
    one = suspect(text="<b>a</b> lives in paris now", where="d.jsonl:1", score=1.25)
    shown = Suspects("d.jsonl", 2, {"ner": "tagging"}, (one,))._repr_html_()
    assert "1 label likely wrong in 2 records" in shown
    cells = ["d.jsonl:1", "ner", "wrong type", "&lt;b&gt;a (LOC)", "&lt;b&gt;a (PER)", "1.25"]
    assert all(f">{cell}</td>" in shown for cell in cells)
    assert "<b>a" not in shown


@pytest.fixture
def one_record(tmp_path: Path) -> Path:
    entities = [{"start": 0, "end": 4, "label": "LOC"}, {"start": 14, "end": 19, "label": "LOC"}]
    return write_records(
        tmp_path / "one.jsonl", [{"text": TEXT, "entities": entities, "label": "x", "id": 7}]
    )


def test_lines_are_reviewed_and_fed_back(
    one_record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = tmp_path / "lines.jsonl"
    write_suspects([suspect(), suspect(task="classification", given="x", proposed="y")], lines)
    edited = lines.read_text().replace('"PER"', '"ORG"').splitlines()
    lines.write_text(edited[0] + "\n")  # the second label is right
    fixed = tmp_path / "fixed.jsonl"
    options = ["--reviewed", str(lines), "--fix", str(fixed), "--task", "ner=tagging"]
    assert main(["data", "suspects", str(one_record), *options]) == 0
    assert "not a label of" in (noted := capsys.readouterr().err)
    assert "before: ORG" in noted
    record = json.loads(fixed.read_text())
    assert [e["label"] for e in record["entities"]] == ["ORG", "LOC"]
    assert (record["label"], record["id"]) == ("x", 7)
    assert main(["data", "suspects", str(one_record), *options, "--json", "-"]) == 0
    applied = json.loads(capsys.readouterr().out)
    assert [one["proposed"]["label"] for one in applied["suspects"]] == ["ORG"]


def test_reviewed_lines_are_not_given_with_options_of_a_search(
    one_record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, fixed = tmp_path / "lines.jsonl", tmp_path / "fixed.jsonl"
    write_suspects([suspect()], lines)
    command = ["data", "suspects", str(one_record), "--reviewed", str(lines), "--fix", str(fixed)]
    options = {"count": 5, "seed": 1, "model_name": "bert", "device": "cpu", "threads": 1}
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        assert main([*command, flag, str(value)]) == 2
        assert f"Leave out {flag}." in capsys.readouterr().err
        with pytest.raises(RequestError, match=f"Leave out `{name}`"):
            manyheads.suspects(one_record, reviewed=lines, fix=fixed, **{name: value})
    assert not fixed.exists()
    tasks = {"ner": {"kind": "tagging", "field": "spans"}}
    other = write_records(tmp_path / "other.jsonl", [{"words": TEXT, "spans": [suspect().given]}])
    manyheads.suspects(other, reviewed=lines, fix=fixed, tasks=tasks, text_field="words")
    assert json.loads(fixed.read_text())["spans"][0]["label"] == "PER"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "another"}, r"lines\.jsonl:1: record 1 of .*one\.jsonl has another text"),
        (
            {"given": {"start": 0, "end": 4, "label": "ORG"}},
            r"lines\.jsonl:1: \{.* cannot become \{.* in the label \[\{'start': 0",
        ),
        ({"proposed": {"start": 0, "end": 19, "label": "PER"}}, "cannot become"),
        ({"proposed": {"start": 20, "end": 30, "label": "LOC"}}, ":1: the proposal does not fit"),
        ({"score": "high"}, r"lines\.jsonl:1: `score` is 'high'"),
        ({"proposed": {"start": 4}}, r"lines\.jsonl:1: an entity is .*expected .*or null"),
        ({"record": 2}, r"lines\.jsonl:1: record 2 should be changed, but .* has 1 record"),
        ({"task": "other"}, "has no 'other' label"),
        ({"record": "one"}, r"lines\.jsonl:1: `record` is 'one'"),
    ],
)
def test_lines_that_do_not_fit_the_data_are_refused(
    one_record: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    lines = tmp_path / "lines.jsonl"
    write_suspects([suspect(**changes)], lines)
    tasks = make_config({"tasks": {"ner": {"kind": "tagging"}}}).tasks
    target = tmp_path / "fixed.jsonl"
    with pytest.raises(DataError, match=message):
        write_fixed(str(one_record), target, read_suspects(lines), tasks)
    assert not target.exists()


def test_other_fields_of_corrected_records_stay_as_they_were(tmp_path: Path) -> None:
    records = [{"text": "a b", "label": "x", "note": "half \ud800"}, {"text": "c", "label": "y"}]
    path = write_records(tmp_path / "data.jsonl", records)
    tasks = make_config({"tasks": {"topic": {"kind": "classification"}}}).tasks
    wrong = Suspect(2, "", "c", "topic", "wrong class", 1.0, "y", "x")
    fixed = tmp_path / "fixed.jsonl"
    assert write_fixed(str(path), fixed, [wrong], tasks) == 1
    assert [dict(row.fields) for row in read_rows(fixed)] == [
        records[0],
        {"text": "c", "label": "x"},
    ]


SHORT = {"start": 0, "end": 4, "label": "PER"}


@pytest.mark.parametrize(
    ("value", "scheme", "given", "proposed", "expected"),
    [
        # A word without a label stays one; an entity that is put there is its label.
        (["O", None, "O", "O"], "auto", None, SHORT, ["B-PER", None, "O", "O"]),
        (["B-PER", "I-PER", None], "auto", {**SHORT, "end": 8}, SHORT, ["B-PER", "O", None]),
        ([None, "O", "O", None], "auto", None, SHORT, ["B-PER", "O", "O", None]),
        (["O", None, "LOC", "O"], "io", None, SHORT, ["PER", None, "LOC", "O"]),
        # Entities that tags would lose or join are written by their characters.
        (["PER", "O", "O", "O"], "io", SHORT, {**SHORT, "end": 2}, [{**SHORT, "end": 2}]),
        (["O", "PER"], "io", None, SHORT, [SHORT, {"start": 5, "end": 8, "label": "PER"}]),
        ([None, "PER"], "io", None, SHORT, [SHORT, {"start": 5, "end": 8, "label": "PER"}]),
        (["O", "PER", None], "io", None, SHORT, None),
        (["O", "O", None, "O"], "auto", None, {**SHORT, "end": 2}, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("has_tokens", [True, False])
def test_what_a_suspect_is_not_about_stays_as_it_was(
    value: list[Any], scheme: str, given: Any, proposed: Any, expected: Any, has_tokens: bool,
    tmp_path: Path,
) -> None:  # fmt: skip
    tokens = ["anna", "and", "paris", "now"][: len(value)]
    content = {"tokens": tokens} if has_tokens else {"text": " ".join(tokens)}
    path = write_records(tmp_path / "data.jsonl", [{**content, "ner": value}])
    tasks = make_config({"tasks": {"ner": {"kind": "tagging", "scheme": scheme}}}).tasks
    wrong = suspect(text=" ".join(tokens), given=given, proposed=proposed)
    if expected is None:
        with pytest.raises(DataError, match=r"the proposal does not fit record 1 .* tokens cannot"):
            write_fixed(str(path), tmp_path / "fixed.jsonl", [wrong], tasks)
        return
    write_fixed(str(path), tmp_path / "fixed.jsonl", [wrong], tasks)
    [row] = read_rows(tmp_path / "fixed.jsonl")
    if isinstance(expected[0], dict) or has_tokens or None in value:
        assert row.fields["ner"] == expected
    else:
        assert all(isinstance(one, dict) for one in row.fields["ner"])


def test_entities_inside_tokens_are_written_by_their_characters() -> None:
    label = (Span(0, 4, "PER"), Span(5, 9, "LOC"))
    assert kind_of("tagging").field_value(label, [(0, 9)]) == [
        {"start": 0, "end": 4, "label": "PER"}, {"start": 5, "end": 9, "label": "LOC"}
    ]  # fmt: skip


def test_no_entity_is_proposed_where_words_have_no_label() -> None:
    kind, text = kind_of("tagging"), Read()
    spec = TaskSpec("ner", "tagging", TagSet.of_types(["LOC", "PER"]).names, Scheme.BIO, "linear")
    label = PartlyLabelled([Span(0, 4, "PER")], WORDS[1:4])
    elsewhere = kind.elsewhere(spec, [label], [text])(0)
    table = logs("B-PER", "I-PER", "O", "B-LOC", "B-LOC")
    found = kind.suspicions(spec, label, text, table, elsewhere)
    assert {region for one in found for region in one.regions} == {WORDS[0], WORDS[4]}
    generator = np.random.default_rng(0)
    spoiled = [
        kind.spoiled(spec, label, text, e, generator) for e in kind.spoils for _ in range(20)
    ]
    labels = [one[0] for one in spoiled if one is not None]
    assert labels
    for one in labels:
        assert set(unlabelled_words(one)) == set(WORDS[1:4])
        assert all(span.end <= 4 or span.start >= 20 for span in one)


def test_label_studio_gets_labels_as_annotations_and_proposals_as_predictions(
    one_record: Path, tmp_path: Path
) -> None:
    tasks = make_config({"tasks": {"ner": {"kind": "tagging"}}}).tasks
    target = tmp_path / "tasks.json"
    assert write_label_studio(str(one_record), target, [suspect()], tasks) == 1
    [task] = json.loads(target.read_text())
    for part, label in (("annotations", "LOC"), ("predictions", "PER")):
        first = task[part][0]["result"][0]["value"]
        assert (first["text"], first["labels"]) == ("anna", [label])
    [row] = read_rows(target)
    assert [e["label"] for e in row.fields["entities"]] == ["LOC", "LOC"]


def test_the_command_shows_a_table_and_never_writes_over_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyheads.training.suspects.search.Folding", lambda seed: QUICK)
    path, _ = planted(tmp_path)
    options = ["--model-name", str(encoder_folder()), "--threads", "1"]
    options += ["--task", "classification=classification"]
    lines = tmp_path / "lines.jsonl"
    assert main(["data", "suspects", str(path), *options, "--count", "1", "--out", str(lines)]) == 0
    shown = capsys.readouterr().out
    assert "1 label likely wrong in 200 records" in shown
    assert "score: the log odds that the label is wrong" in shown
    assert "wrong class" in shown
    [line] = [json.loads(line) for line in lines.read_text().splitlines()]
    assert (line["record"], line["error"]) == (5, "wrong class")
    assert main(["data", "suspects", str(path), *options, "--fix", str(path)]) == 2
    assert "would be written over itself" in capsys.readouterr().err
    assert main(["data", "suspects", str(path), *options, "--out", f"{tmp_path}/none/x"]) == 2
    assert "its folder does not exist" in capsys.readouterr().err


def with_pairs(folder: Path, count: int) -> tuple[str, Any]:
    """Sentences with a class, every second one also the first text of a pair, and their tasks."""
    records = sentences(count, 3, fields=["label"])
    for i, record in enumerate(records[::2]):
        record |= {
            "text": " ".join(record.pop("tokens")),
            "text2": f"paris {i}",
            "same": "yn"[i % 2],
        }
    tasks = {"label": {"kind": "classification"}, "same": {"kind": "pair", "field": "same"}}
    return str(write_records(folder / "pairs.jsonl", records)), config(tasks=tasks)


BRIEF = Folding(folds=2, repeats=1, epochs=1, steps=20)


def test_single_texts_are_checked_beside_pairs(tmp_path: Path) -> None:
    path, made = with_pairs(tmp_path, 40)
    found = find_suspects(path, made, count=1000, folding=BRIEF)
    assert Counter(one.task for one in found) == {"label": 40, "same": 20}


def test_neighbours_vote_with_their_own_labels_in_any_number_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = with_pairs(tmp_path, 40)

    def scores() -> list[float]:
        found = find_suspects(path, made, count=1000, folding=BRIEF)
        return [one.score for one in sorted(found, key=lambda one: (one.task, one.record))]

    at_once = scores()
    monkeypatch.setattr("manyheads.training.data.dataset._CHUNK", 8)
    assert scores() == pytest.approx(at_once, abs=1e-3)


def test_numbers_and_few_records_cannot_be_checked(tmp_path: Path) -> None:
    records = [{"text": f"text {i}", "value": float(i), "label": "ab"[i % 2]} for i in range(6)]
    with pytest.raises(manyheads.ManyheadsError, match="numbers, which cannot be checked"):
        manyheads.suspects(records, tasks={"value": {"kind": "regression"}}, progress=False)
    with pytest.raises(DataError, match="6 records; expected at least 20"):
        manyheads.suspects(records, tasks={"t": {"kind": "classification"}}, progress=False)


def test_copies_of_few_texts_are_refused(tmp_path: Path) -> None:
    records = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(30)]
    path = write_records(tmp_path / "numbered.jsonl", records)
    made = config(tasks={"label": {"kind": "classification"}})
    with pytest.raises(DataError, match=r"labels in 1 different text; expected at least 5; texts"):
        find_suspects(str(path), made)
    path = write_records(tmp_path / "tagged.jsonl", sentences(4, 3, fields=["ner"]) * 10)
    with pytest.raises(DataError, match="labels in 4 different texts; expected at least 5"):
        find_suspects(str(path), config(tasks={"ner": {"kind": "tagging"}}))


def test_a_task_with_labels_in_few_texts_is_left_out_with_a_note(tmp_path: Path) -> None:
    records = [*sentences(40, 1, fields=["label"]), *sentences(2, 5)]
    path = write_records(tmp_path / "few.jsonl", records)
    found = find_suspects(str(path), config(), count=1000, folding=replace(BRIEF, folds=3))
    assert found.notes == ("not checked: ner (labels in fewer than 3 texts)",)
    assert found.tasks == {"classification": "classification"}
    assert len(found) == 42


def test_tags_are_judged_if_all_of_them_are_in_the_fold_that_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two_parts(keys: Sequence[str], folds: int, seed: int) -> Any:
        return (np.arange(len(keys)) < 40).astype(np.int64)

    monkeypatch.setattr("manyheads.training.suspects.folds.fold_of", two_parts)
    records = [*sentences(40, 1, fields=["label"]), *sentences(2, 5)]
    path = write_records(tmp_path / "few.jsonl", records)
    assert find_suspects(str(path), config(), folding=BRIEF).notes == ()
