"""The data check reports every error with its place and continues."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from files import write
from manyheads.config import TaskConfig
from manyheads.data.check import DataReport, Finding, Kind, Lengths, Severity, check_data
from manyheads.data.check.duplicates import CopyFinder, Place
from manyheads.data.readers import Layout
from manyheads.data.records import Record, discover_labels
from manyheads.errors import DataError, worded_for_command
from manyheads.tasks import Span
from manyheads.text import TextTokenizer, Units, segment, unknown_scripts
from tiny import tiny_tokenizer

CLASS = TaskConfig(kind="classification")
TAGS = TaskConfig(kind="tagging")
BOTH = {"c": CLASS, "t": TAGS}


def of_kind(report: DataReport, kind: Kind) -> list[Finding]:
    return [finding for finding in report.findings if finding.kind is kind]


def only(report: DataReport, kind: Kind) -> Finding:
    """The only finding of a kind."""
    (finding,) = of_kind(report, kind)
    assert report.counts[kind] == 1
    return finding


def sound(number: int) -> dict[str, Any]:
    tags = ["B-x", "O"] if number % 2 else ["O", "O"]
    return {"tokens": [f"w{number}", "end"], "label": "ab"[number % 2], "ner": tags}


@pytest.fixture
def tokenizer() -> TextTokenizer:
    return TextTokenizer(tiny_tokenizer())


def test_sound_data_has_no_findings(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    train = write(tmp_path / "train.jsonl", *map(sound, range(20)))
    valid = write(tmp_path / "valid.jsonl", *map(sound, range(20, 30)))
    report = check_data([train, valid], BOTH, tokenizer)
    assert report.ok
    assert not report.findings
    assert not report.counts
    first, second = report.files
    assert (first.path, first.records, first.broken, first.complete) == (train, 20, 0, True)
    assert first.tasks["c"].labels == {"a": 10, "b": 10}
    assert first.tasks["t"].labels == {"x": 10}
    assert (first.tasks["t"].labelled, first.tasks["t"].with_label) == (20, 10)
    assert first.words == Lengths(2.0, 2, 2, 2, 2, 2)
    assert first.tokens is not None
    assert first.tokens.longest > 4
    assert second.records == 10
    assert report.max_length == 128


def test_without_a_tokenizer_nothing_is_said_about_truncation(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", sound(0), sound(1), {**sound(2), "tokens": ["w"] * 900,
                                                            "ner": ["B-x"] * 900})  # fmt: skip
    report = check_data([path], BOTH)
    assert report.max_length is None
    assert report.files[0].tokens is None
    assert report.files[0].words.longest == 900
    assert report.ok


def test_lengths_are_lengths_that_occur() -> None:
    assert Lengths.of(range(1, 101)) == Lengths(50.5, 50, 90, 95, 99, 100)
    assert Lengths.of([]) == Lengths(0.0, 0, 0, 0, 0, 0)


def test_every_bad_record_of_a_line_based_file_is_reported(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl",
        sound(0), "{", {"text": ""}, sound(1), {"tokens": ["a"], "ner": ["O", "O"]}, "[]",
        {"text": "b", "label": [1]},
    )  # fmt: skip
    report = check_data([path], BOTH)
    findings = of_kind(report, Kind.BROKEN_RECORD)
    assert [finding.where for finding in findings] == [f"{path}:{n}" for n in (2, 3, 5, 6, 7)]
    assert "broken JSON at column 2" in findings[0].message
    assert findings[2].message == "`ner` has 2 tags for 1 token; expected one tag a token"
    assert findings[2].fix == "Correct the tags."
    assert (report.files[0].records, report.files[0].broken) == (2, 5)
    assert not report.ok


def test_findings_are_listed_up_to_a_limit_and_counted_beyond_it(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", sound(0), sound(1), *[{"text": ""}] * 50)
    two = write(tmp_path / "two.jsonl", sound(2), sound(3), *[{"text": ""}] * 50)
    report = check_data([one, two], BOTH, limit=3)
    listed = of_kind(report, Kind.BROKEN_RECORD)
    assert [f.where.rsplit("/")[-1] for f in listed] == [
        f"{name}.jsonl:{line}" for name in ("one", "two") for line in (3, 4, 5)
    ]
    assert report.counts == {Kind.BROKEN_RECORD: 100}
    assert report.unlisted == {Kind.BROKEN_RECORD: 94}
    assert report.count(Severity.ERROR) == 100
    assert report.count(Severity.WARNING) == 0


def test_a_file_that_breaks_off_is_an_error_and_the_others_are_checked(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps([sound(0), sound(1)])[:-1])
    other = write(tmp_path / "x.jsonl", sound(2), sound(3), {"text": ""})
    report = check_data([str(broken), other], BOTH)
    assert "the file ends inside the list" in only(report, Kind.BROKEN_FILE).message
    assert [(file.records, file.complete) for file in report.files] == [(2, False), (2, True)]
    assert report.counts[Kind.BROKEN_RECORD] == 1


def test_files_that_cannot_be_opened_are_an_error_of_the_request(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", sound(0))
    with pytest.raises(DataError, match="there is no such file"):
        check_data([path, str(tmp_path / "absent.json")])
    with pytest.raises(DataError, match="cannot be read"):
        check_data([path, "a\0b"])
    with pytest.raises(DataError, match="the file is given twice"):
        check_data([path, path])
    with pytest.raises(DataError, match="the file is given twice"):
        check_data([path, str(tmp_path / ".." / tmp_path.name / "x.jsonl")])


def test_copies_in_a_file_are_duplicates_or_contradictions(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl",
        {"text": "play a song", "label": "a"},
        {"text": "play  a song ", "label": "a"},
        {"text": "sing", "label": "b"},
        {"text": "play a song", "label": "b"},
        {"text": "Sing", "label": "a"},
    )
    report = check_data([path], {"c": CLASS})
    assert only(report, Kind.DUPLICATE).where == f"{path}:2"
    contradiction = only(report, Kind.CONTRADICTION)
    assert contradiction.where == f"{path}:4"
    assert f"the same text as {path}:1, with another label of the task 'c'" in (
        contradiction.message
    )
    assert report.files[0].duplicates == 2
    assert not report.ok


def test_copies_in_json_on_one_line_are_found_by_the_numbers_of_their_records(
    tmp_path: Path,
) -> None:
    lines = write(tmp_path / "lines.jsonl", {"text": "hum", "label": "a"})
    path = tmp_path / "x.json"
    rows = [{"text": text, "label": label} for text, label in ("ab", "ca", "ab", "aa")]
    path.write_text(json.dumps([*rows, {"text": "hum", "label": "a"}]), encoding="utf-8")
    report = check_data([lines, str(path)], {"c": CLASS})
    contradiction = only(report, Kind.CONTRADICTION)
    assert contradiction.where == f"{path}:1 (record 4)"
    assert contradiction.message.startswith(f"the same text as {path}:1 (record 1), with another")
    duplicate, leak = only(report, Kind.DUPLICATE), only(report, Kind.LEAK)
    assert (duplicate.where, duplicate.message) == (
        f"{path}:1 (record 3)", f"the same text as {path}:1 (record 1)",
    )  # fmt: skip
    assert (leak.where, leak.message) == (f"{path}:1 (record 5)", f"the same text as {lines}:1")


@pytest.mark.parametrize(
    ("first", "second"), [(1, 5), (5, 1), (0, 2), (2, 0), (-1, -2), (0.0, 1), (3, 5)]
)
def test_every_two_numbers_contradict_each_other(
    tmp_path: Path, first: float, second: float
) -> None:
    stars = {"stars": TaskConfig(kind="regression", field="stars")}
    rows = [{"text": "a film", "stars": number} for number in (first, second, first)]
    report = check_data([write(tmp_path / "x.jsonl", *rows)], stars)
    assert only(report, Kind.CONTRADICTION).where.endswith("x.jsonl:2")
    assert only(report, Kind.DUPLICATE).where.endswith("x.jsonl:3")


def test_pairs_that_differ_in_white_space_do_not_contradict_each_other(tmp_path: Path) -> None:
    same = {"same": TaskConfig(kind="pair", field="label")}
    rows = [
        {"text": "a film", "text2": second, "label": label}
        for second, label in (("a movie", "yes"), ("a  movie", "yes"), ("a movie", "no"))
    ]
    report = check_data([write(tmp_path / "x.jsonl", *rows)], same)
    assert only(report, Kind.DUPLICATE).where.endswith("x.jsonl:2")
    assert only(report, Kind.CONTRADICTION).where.endswith("x.jsonl:3")


def test_copies_between_files_are_leaks_where_both_answer_the_same_task(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", {"text": "a", "label": "x"}, {"text": "b c"})
    valid = write(
        tmp_path / "valid.jsonl", {"text": "a", "label": "y"}, {"text": "b c", "label": "x"}
    )
    report = check_data([train, valid], {"c": CLASS})
    leak = only(report, Kind.LEAK)
    assert leak.where == f"{valid}:1"
    assert leak.message == f"the same text as {train}:1"
    assert only(report, Kind.CONTRADICTION).where == f"{valid}:1"
    assert [file.leaks for file in report.files] == [0, 1]
    tags = write(tmp_path / "tags.jsonl", {"text": "a", "ner": ["B-x"]})
    apart = check_data({train: ["c"], tags: ["t"]}, BOTH)
    assert Kind.LEAK not in apart.counts


def test_repeated_texts_are_leaks_if_no_file_has_labels(tmp_path: Path) -> None:
    one, two = (write(tmp_path / f"{n}.jsonl", {"text": "a"}) for n in (1, 2))
    assert only(check_data([one, two]), Kind.LEAK).where == f"{two}:1"
    assert only(check_data([one, two], {}), Kind.LEAK).where == f"{two}:1"


def test_tags_and_entities_of_one_sentence_do_not_contradict(tmp_path: Path) -> None:
    entities = [{"start": 5, "end": 9, "label": "PER"}]
    path = write(
        tmp_path / "x.jsonl",
        {"tokens": ["call", "Anna"], "ner": ["O", "B-PER"]},
        {"text": "call Anna", "entities": entities},
        {"text": "call  Anna", "entities": [{"start": 6, "end": 10, "label": "PER"}]},
        {"text": "call Anna", "entities": []},
    )
    report = check_data([path], {"t": TAGS})
    assert report.counts == {Kind.DUPLICATE: 2, Kind.CONTRADICTION: 1}
    assert only(report, Kind.CONTRADICTION).where == f"{path}:4"


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from([None, "x", "y"]), st.integers(0, 2)),
        max_size=12,
    )
)
@settings(max_examples=80)
def test_copies_are_the_same_as_by_comparing_all_pairs(
    records: list[tuple[str, str | None, int]],
) -> None:
    records.sort(key=lambda record: record[2])
    finder = CopyFinder(["t", "other"])
    for line, (text, label, file) in enumerate(records):
        labels: dict[str, str | tuple[Span, ...]] = {} if label is None else {"t": label}
        finder.add(file, line, Record(text, None, labels, ""))
    found = {copy.place.line: copy for copy in finder.copies(["other", "t"])}
    assert list(found) == sorted(found)
    for line, (text, label, file) in enumerate(records):
        before = [(i, r) for i, r in enumerate(records[:line]) if r[0] == text]
        assert (line in found) == bool(before)
        if not before:
            continue
        twins = [Place(f, i) for i, (_, _, f) in before if f == file]
        leaks = [Place(f, i) for i, (_, v, f) in before if label and v and f != file]
        first_answer = next(((v, Place(f, i)) for i, (_, v, f) in before if v), None)
        contradicted = label and first_answer and first_answer[0] != label
        copy = found[line]
        assert copy.duplicate_of == (twins[0] if twins else None)
        assert copy.leaked_from == (leaks[0] if leaks else None)
        expected = ("t", first_answer[1]) if contradicted and first_answer else None
        assert copy.contradicts == expected


def test_records_without_any_label_are_warned_about(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl", sound(0), sound(1), {"text": "a"}, {"text": "b", "label": "a"}
    )
    report = check_data([path], BOTH)
    finding = only(report, Kind.UNLABELLED)
    assert finding.where == f"{path}:3"
    assert finding.severity is Severity.WARNING
    assert finding.fix == "Fill one of label, ner, entities, or remove the record."
    assert report.ok
    assert report.files[0].tasks["t"].unlabelled == 2


def conll(path: Path, *sentences: Sequence[str]) -> str:
    blocks = ["".join(f"w{i}{j}\t{tag}\n" for j, tag in enumerate(tags)) for i, tags in
              enumerate(sentences)]  # fmt: skip
    path.write_text("\n".join(blocks))
    return str(path)


def test_entities_that_begin_inside_are_errors_where_others_begin_with_b(tmp_path: Path) -> None:
    path = conll(tmp_path / "x.conll", ["B-x", "I-x", "O", "I-x"], ["I-y", "I-x"], ["B-x", "I-y"])
    report = check_data([path], {"t": TAGS}, limit=2)
    findings = of_kind(report, Kind.INSIDE_START)
    assert [finding.message for finding in findings] == [
        "tag 3, I-x, begins an entity",
        "tag 0, I-y, begins an entity",
    ]
    assert [finding.where for finding in findings] == [f"{path}:1", f"{path}:6"]
    assert report.counts[Kind.INSIDE_START] == 4
    assert not report.ok


def test_an_entity_that_begins_inside_after_a_whole_one_is_found(tmp_path: Path) -> None:
    path = conll(tmp_path / "x.conll", ["W-x", "M-x", "E-x"])
    report = check_data([path], {"t": TAGS})
    assert only(report, Kind.INSIDE_START).message == "tag 1, M-x, begins an entity"


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        ([["I-x", "I-x", "B-x", "O", "I-y"], ["O"]], "IOB1"),
        ([["B-x", "E-x", "O", "S-y"]], "IOBES"),
        ([["B-x", "I-x", "L-x", "U-y"]], "BILOU"),
        ([["O", "W-y", "B-x", "M-x", "E-x"]], "IOBES"),
    ],
)
def test_other_schemes_are_read_and_only_noted(
    sentences: list[list[str]], scheme: str, tmp_path: Path
) -> None:
    path = conll(tmp_path / "x.conll", *sentences)
    report = check_data([path], {"t": TAGS})
    finding = only(report, Kind.SCHEME)
    assert finding.message == f"the tags of the task 't' are {scheme}; they are read as BIO"
    assert finding.severity is Severity.NOTE
    assert report.ok


def test_entities_that_begin_inside_are_found_in_indices_and_in_text_too(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jsonl",
        {"tokens": ["a", "b"], "ner": [0, 2]}, {"tokens": ["c"], "ner": [1]},
    )  # fmt: skip
    report = check_data([path], {"t": TaskConfig(kind="tagging", num_labels=3)})
    assert only(report, Kind.INSIDE_START).message == "tag 1, I-1, begins an entity"
    text = tmp_path / "x.csv"
    text.write_text("tokens,ner\na b,O I-x\nc,B-x\n")
    report = check_data([str(text)], {"t": TAGS})
    assert only(report, Kind.INSIDE_START).where == f"{text}:2"


@pytest.mark.parametrize("scheme", ["io", "plain"])
def test_the_form_of_tags_is_not_judged_where_the_scheme_is_set(
    scheme: str, tmp_path: Path
) -> None:
    tags = ["O", "E-mail", "U-Bahn"]
    for ner, task in (
        (tags, TaskConfig(kind="tagging", scheme=scheme)),
        ([0, 1, 2], TaskConfig(kind="tagging", scheme=scheme, labels=tuple(tags))),
    ):
        path = write(tmp_path / "x.jsonl", {"tokens": ["a", "b", "c"], "ner": ner})
        found = {finding.kind for finding in check_data([path], {"t": task}).findings}
        assert not found & {Kind.SCHEME, Kind.INSIDE_START}


def entity(text: str, start: int, end: int) -> dict[str, Any]:
    return {"text": text, "entities": [{"start": start, "end": end, "label": "LOC"}]}


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_entities_have_to_end_where_words_do(
    with_tokenizer: bool, tmp_path: Path, tokenizer: TextTokenizer
) -> None:
    path = write(
        tmp_path / "x.jsonl",
        entity("to Paris.", 3, 8),
        entity("in Berlin", 3, 6),
        entity("at New York", 4, 11),
        entity("by London here", 4, 7),
        entity("from Rome to", 4, 10),
        entity("ends \u200b", 5, 6),
        *(entity(f"in Rome {n}", 3, 7) for n in range(200)),
    )
    report = check_data([path], {"t": TAGS}, tokenizer if with_tokenizer else None)
    cuts = [(f.where, f.message, f.fix) for f in of_kind(report, Kind.CUT_WORD)]
    assert cuts == [
        (
            f"{path}:2",
            "the 't' entity 'Ber' (LOC, 3 to 6) cuts the word 'Berlin'",
            "Move its border to the word's, 3 or 9: the model labels whole words.",
        ),
        (
            f"{path}:3",
            "the 't' entity 'ew York' (LOC, 4 to 11) cuts the word 'New'",
            "Move its border to the word's, 3 or 6: the model labels whole words.",
        ),
        (
            f"{path}:4",
            "the 't' entity 'ond' (LOC, 4 to 7) cuts the word 'London'",
            "Move its border to the word's, 3 or 9: the model labels whole words.",
        ),
    ]
    assert only(report, Kind.WHITE_SPACE).where == f"{path}:5"
    assert only(report, Kind.WHITE_SPACE).severity is Severity.WARNING
    assert only(report, Kind.NO_WORD).where == f"{path}:6"
    assert not report.ok


def test_many_entities_inside_words_are_a_note_since_tags_go_on_pieces(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", entity("take 5mg", 5, 6), entity("take 7ml", 5, 6))
    report = check_data([path], {"t": TAGS})
    assert not of_kind(report, Kind.CUT_WORD)
    note = only(report, Kind.PIECES)
    assert note.message.startswith("2 of 2 entities of the task 't' begin or end inside a word")
    assert note.severity is Severity.NOTE


def test_a_script_that_the_vocabulary_lacks_is_a_warning(
    tmp_path: Path, tokenizer: TextTokenizer
) -> None:
    path = write(tmp_path / "x.jsonl", *({"text": f"สวัสดี {n}", "label": "a"} for n in range(30)))
    report = check_data([path], {"c": TaskConfig(kind="classification")}, tokenizer)
    warning = only(report, Kind.UNKNOWN_SCRIPT)
    assert "lacks 100% of Thai words" in warning.message
    assert warning.severity is Severity.WARNING


def test_a_script_is_found_wherever_in_the_texts_it_is(
    tmp_path: Path, tokenizer: TextTokenizer
) -> None:
    texts = ["music"] * 2000 + ["สวัสดี"] * 1999
    assert unknown_scripts(texts, tokenizer) == {"Thai": 1.0}
    path = write(
        tmp_path / "x.jsonl", *({"text": f"{t} {i}", "label": "a"} for i, t in enumerate(texts))
    )
    warning = only(check_data([path], {"c": CLASS}, tokenizer), Kind.UNKNOWN_SCRIPT)
    assert "of Thai words" in warning.message


def test_a_script_without_spaces_is_judged_by_its_letters(
    tmp_path: Path, tokenizer: TextTokenizer
) -> None:
    sentence = "แมวดำนอนหลับอยู่บนโต๊ะไม้ตัวเก่า"
    path = write(tmp_path / "x.jsonl", {"text": sentence, "label": "a"})
    expected = {"Thai": 1.0}
    assert all(unknown_scripts([sentence], tokenizer.with_units(u)) == expected for u in Units)
    warning = only(check_data([path], {"c": CLASS}, tokenizer), Kind.UNKNOWN_SCRIPT)
    assert "lacks 100% of Thai words" in warning.message


@given(st.text(st.sampled_from("ab .,é日\u0301\u200d😀"), min_size=1, max_size=12), st.data())
@settings(max_examples=50)
def test_a_border_inside_a_word_is_always_found(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    if not text[start:end].strip():
        return
    path = write(tmp_path_factory.getbasetemp() / "border.jsonl", entity("x", 0, 1),
                 entity(text, start, end))  # fmt: skip
    report = check_data([path], {"t": TAGS})
    words = segment(text).tolist()
    cut = [(s, e) for s, e in words if s < start < e or s < end < e]
    overlapped = any(s < end and start < e for s, e in words)
    assert report.counts.get(Kind.CUT_WORD, 0) == len(cut)
    assert report.counts.get(Kind.NO_WORD, 0) == (not overlapped)


def test_truncation_is_a_warning_and_an_error_where_it_loses_labels(
    tmp_path: Path, tokenizer: TextTokenizer
) -> None:
    filler = [{"tokens": ["the", "song"], "ner": ["B-x", "O"]}]
    long = ["to"] * 20
    tags = ["O"] * 20
    path = write(
        tmp_path / "x.jsonl", *filler,
        {"tokens": long, "ner": ["B-x", *tags[1:]]},
        {"tokens": [*long, "end"], "ner": [*tags[:9], "B-x", "I-x", "O", "B-y", *tags[13:], "O"]},
    )  # fmt: skip
    report = check_data([path], {"t": TAGS}, tokenizer, max_length=12)
    warning = only(report, Kind.TRUNCATED)
    assert warning.where == f"{path}:2"
    assert warning.message == (
        "22 sub-tokens, of which training reads 12: it loses 10 words, and no tag or entity"
    )
    error = only(report, Kind.LOST_LABEL)
    assert error.where == f"{path}:3"
    assert "it loses 'to to' (x, 27 to 32), 'to' (y, 36 to 38)" in error.message
    assert error.fix.startswith("Set `max_length` to 2")
    file = report.files[0]
    assert (file.truncated, file.labels_lost) == (2, 2)
    assert file.words_lost >= 20
    assert not report.ok


def test_an_entity_that_ends_where_the_first_lost_word_begins_is_kept(
    tmp_path: Path, tokenizer: TextTokenizer
) -> None:
    path = write(tmp_path / "x.jsonl", entity("to Paris....", 3, 8))
    report = check_data([path], {"t": TAGS}, tokenizer, max_length=4)
    assert only(report, Kind.TRUNCATED)
    assert report.files[0].words_lost == 4
    assert Kind.LOST_LABEL not in report.counts


def test_labels_are_judged_over_all_files(tmp_path: Path) -> None:
    train = write(
        tmp_path / "train.jsonl", {"text": "a", "label": "yes"}, {"text": "b", "label": "no"}
    )
    valid = write(
        tmp_path / "valid.jsonl", {"text": "c", "label": "Yes"}, {"text": "d", "label": "maybe"}
    )
    report = check_data([train, valid], {"c": CLASS})
    assert report.ok
    unseen = [finding.message for finding in of_kind(report, Kind.UNSEEN_LABEL)]
    assert unseen == [
        "the label 'Yes' of the task 'c' occurs 1 time here and in no file before",
        "the label 'maybe' of the task 'c' occurs 1 time here and in no file before",
    ]
    assert "the labels 'yes', 'Yes' of the task 'c' differ only in case" in (
        only(report, Kind.ALIKE).message
    )
    listed = TaskConfig(kind="classification", labels=("no", "yes"))
    report = check_data([train, valid], {"c": listed})
    assert [f.where for f in of_kind(report, Kind.LABELS)] == [f"{valid}:1", f"{valid}:2"]
    assert not report.ok
    few = TaskConfig(kind="classification", num_labels=3)
    report = check_data([train, valid], {"c": few})
    assert "has 4 labels: Yes, maybe, no, yes; expected at most 3" in (
        only(report, Kind.LABELS).message
    )


def test_indices_have_the_names_that_the_configuration_lists(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", *({"text": str(i), "label": i} for i in range(3)))
    listed = TaskConfig(kind="classification", labels=("no", "yes"))
    report = check_data([path], {"c": listed})
    assert report.files[0].tasks["c"].labels == {"no": 1, "yes": 1}
    assert only(report, Kind.BROKEN_RECORD).where == f"{path}:3"


def test_a_single_class_is_warned_about(tmp_path: Path) -> None:
    one = {"text": "a", "label": "PlayMusic"}
    path = write(tmp_path / "x.jsonl", one, {"text": "b", "label": "PlayMusic"})
    report = check_data([path], {"c": CLASS})
    assert only(report, Kind.ONE_CLASS).message == "the task 'c' has only one class, 'PlayMusic'"
    assert report.ok


def test_two_classes_that_differ_in_case_are_not_one_class(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"text": "a", "label": "café"},
                 {"text": "b", "label": "CAFÉ"})  # fmt: skip
    report = check_data([path], {"c": CLASS})
    assert report.counts == {Kind.ALIKE: 1}
    assert "the labels 'café', 'CAFÉ' of the task 'c' differ" in only(report, Kind.ALIKE).message


@pytest.mark.parametrize(
    ("rare", "frequent", "is_slip"),
    [
        ("Citty", "CITY", True),
        ("perosn", "person", True),
        ("PERSN", "PERSON", True),
        ("playmusic", "play_music", True),
        ("play_musc", "play_music", True),
        ("refunds", "Refund", True),
        ("cite", "city", False),
        ("Iraq", "Iran", False),
        ("log_on", "log_in", False),
        ("hepatitis A", "hepatitis B", False),
        ("stage III", "stage II", False),
        ("grade-", "grade+", False),
        ("D11.9", "E11.9", False),
        ("version2a", "version2b", False),
        ("atypical", "typical", False),
        ("VAFIN", "VVFIN", False),
        ("PIDAT", "PIAT", False),
        ("国外新闻", "国内新闻", False),
        ("请查询我的订单号", "请查询我的订单码", True),
        ("level 1", "level 2", False),
        ("level 10", "level 1", False),
        ("LOCS", "LOC", False),
        ("PlayMusic", "PlayVideo", False),
        ("tyci", "city", False),
    ],
)
def test_a_rare_label_that_is_spelt_like_a_frequent_one_may_be_a_slip(
    rare: str, frequent: str, is_slip: bool, tmp_path: Path
) -> None:
    names = [rare, rare, "another", *[frequent] * 20]
    path = write(tmp_path / "x.jsonl", *({"text": str(i), "label": n} for i, n in enumerate(names)))
    found = of_kind(check_data([path], {"c": CLASS}), Kind.ALIKE)
    assert [f.message for f in found] == is_slip * [
        f"the label {rare!r} of the task 'c' occurs 2 times and is spelt like {frequent!r}, which "
        "occurs 20 times"
    ]
    assert [f.fix for f in found] == is_slip * [
        f"If it is {frequent!r}, give one class one name. It may be another class."
    ]


@pytest.mark.parametrize(("scheme", "warnings"), [("plain", 0), ("io", 1)])
def test_plain_tags_that_are_spelt_alike_are_not_slips(
    scheme: Literal["plain", "io"], warnings: int, tmp_path: Path
) -> None:
    rows = [{"tokens": ["a", "b"], "tags": ["Agpfsn", tag]} for tag in ["Agpmsn", *["O"] * 20]]
    task = TaskConfig(kind="tagging", field="tags", scheme=scheme)
    report = check_data([write(tmp_path / "x.jsonl", *rows)], {"pos": task})
    assert len(of_kind(report, Kind.ALIKE)) == warnings


def test_labels_that_are_spelt_alike_and_frequent_are_not_slips(tmp_path: Path) -> None:
    names = ["order", "orders", "orders"] * 10
    path = write(tmp_path / "x.jsonl", *({"text": str(i), "label": n} for i, n in enumerate(names)))
    assert Kind.ALIKE not in check_data([path], {"c": CLASS}).counts


def test_a_task_needs_a_label_in_each_of_its_files(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", {"text": "a", "label": "x"}, {"text": "b", "label": "y"})
    two = write(tmp_path / "two.jsonl", {"text": "c", "category": "x"})
    report = check_data([one, two], BOTH)
    assert "the task 't' has no label: none of 3 records" in only(report, Kind.NO_LABEL).message
    report = check_data({one: ["c"], two: ["c"]}, {"c": CLASS})
    assert only(report, Kind.NO_LABEL).where == two
    assert "no record has `label`, the label of the task 'c'" in only(report, Kind.NO_LABEL).message


def test_without_tasks_the_usual_fields_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", sound(0), sound(1))
    report = check_data([path])
    assert set(report.files[0].tasks) == {"classification", "ner"}
    assert report.ok
    lists = write(tmp_path / "y.jsonl", {"text": "a", "labels": ["p", "q"]})
    assert set(check_data([lists]).files[0].tasks) == {"multilabel"}


def test_a_report_is_json(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    path = write(tmp_path / "x.jsonl", sound(0), {"text": "", "label": "é"}, sound(1))
    report = check_data([path], BOTH, tokenizer)
    value = json.loads(json.dumps(report.to_json()))
    assert value["ok"] is False
    assert value["counts"] == {"broken record": 1}
    assert value["findings"] == [
        {
            "severity": "error",
            "kind": "broken record",
            "where": f"{path}:2",
            "message": "the text is empty; expected a sentence",
            "fix": "Remove the record.",
        }
    ]
    assert value["files"][0]["tasks"]["c"]["labels"] == {"a": 1, "b": 1}
    assert value["files"][0]["words"]["median"] == 2


def test_long_files_are_checked_chunk_by_chunk(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    texts = [*range(1100), "x " * 600_000, *range(1100, 1300)]
    path = write(tmp_path / "x.jsonl", *({"text": f"no {t}", "label": "ab"[i % 2]} for i, t in
                                         enumerate(texts)))  # fmt: skip
    report = check_data([path], {"c": CLASS})
    assert report.files[0].records == len(texts)
    assert report.files[0].words == Lengths.of([2] * 1300 + [600_001])
    assert report.ok


# Contents that are not read are reported.


def test_a_file_in_which_no_task_finds_a_label_is_an_error_that_names_the_fields(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "x.jsonl", {"text": "a", "category": "x"}, {"text": "b", "id": 1})
    report = check_data([path])
    assert not report.ok
    found = only(report, Kind.NO_LABEL)
    assert "none of label, labels, ner, entities among the fields text, category, id" in (
        found.message
    )
    assert found.fix.startswith("Name the labels' field: `tasks={NAME: {")
    with worded_for_command():
        found = only(check_data([path]), Kind.NO_LABEL)
    assert found.fix.startswith("Name the labels' field: --task NAME=KIND:FIELD")
    layout = Layout(names={"category": "label"})
    assert check_data([path], layout=layout).files[0].tasks["classification"].labelled == 1


def test_fields_that_no_task_reads_are_noted_with_the_nearest_name(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"text": "a", "label": "x", "entites": []},
                 {"text": "b", "label": "y"})  # fmt: skip
    found = only(check_data([path]), Kind.UNREAD)
    assert found.severity is Severity.NOTE
    assert found.message == (
        "no task reads the field 'entites', found in 1 record (did you mean \"entities\"?)"
    )


def test_the_tasks_are_those_that_training_finds(tmp_path: Path) -> None:
    span = [{"start": 0, "end": 1, "label": "Y"}]
    path = write(
        tmp_path / "x.jsonl",
        *({"tokens": [f"{i}", "b"], "ner": ["B-X", "O"], "entities": span, "topic": "pq"[i % 2],
           "stars": i % 3} for i in range(12)),
    )  # fmt: skip
    report = check_data([path])
    assert list(report.files[0].tasks) == ["ner", "entities", "topic"]
    assert report.files[0].tasks["ner"].labels == {"X": 12}
    assert report.files[0].tasks["entities"].labels == {"Y": 12}
    found = only(report, Kind.AMBIGUOUS)
    assert found.severity is Severity.WARNING
    assert "3 different whole numbers in 12 records, which could be classification or" in (
        found.message
    )
    broken = write(tmp_path / "y.jsonl", {"text": ""}, *({"text": "a", "topic": "p"},) * 2, "{",
                   *({"text": "b", "topic": "q"},) * 2)  # fmt: skip
    report = check_data([broken])
    assert report.counts == {Kind.BROKEN_RECORD: 2, Kind.DUPLICATE: 2}
    assert list(report.files[0].tasks) == ["topic"]


def test_labels_in_a_second_field_of_a_task_are_noted_as_not_read(tmp_path: Path) -> None:
    span = [{"start": 0, "end": 1, "label": "Y"}]
    both = {"text": "a b", "ner": ["B-X", "O"], "entities": span, "goal": "p", "label": "q"}
    path = write(tmp_path / "x.jsonl", both, {"text": "c", "entities": span, "label": "r"})
    tasks = {"t": TAGS, "goal": CLASS}
    messages = [finding.message for finding in of_kind(check_data([path], tasks), Kind.UNREAD)]
    assert messages == [
        "the task 't' reads the field 'ner' and not 'entities', which 1 record has beside it",
        "the task 'goal' reads the field 'goal' and not 'label', which 1 record has beside it",
    ]
    other = TaskConfig(kind="tagging", field="entities")
    assert not of_kind(check_data([path], {**tasks, "o": other, "c": CLASS}), Kind.UNREAD)


def test_records_that_a_format_passes_over_are_counted(tmp_path: Path) -> None:
    answers = ["accept", "reject", "ignore", "accept"]
    path = write(
        tmp_path / "x.jsonl",
        *({"text": f"{i}", "label": "xy"[i % 2], "answer": a} for i, a in enumerate(answers)),
    )
    messages = [finding.message for finding in of_kind(check_data([path]), Kind.UNREAD)]
    assert messages == [
        "not read: records whose answer is 'reject' (1)",
        "not read: records whose answer is 'ignore' (1)",
    ]


def test_validation_data_without_entities_are_warned_about(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", *map(sound, range(4)))
    valid = write(tmp_path / "valid.jsonl", {"text": "it rained", "ner": ["O", "O"]})
    found = only(check_data([train, valid], {"t": TAGS}), Kind.NO_ENTITY)
    assert found.severity is Severity.WARNING
    assert "all labels of the task 't' are empty, in 1 record" in found.message
    assert Kind.NO_ENTITY not in check_data([train], {"t": TAGS}).counts


def test_a_repeated_entity_is_noted(tmp_path: Path) -> None:
    item = {"start": 0, "end": 1, "label": "x"}
    path = write(tmp_path / "x.jsonl", {"text": "a", "entities": [item, item]})
    assert "2 entities, of which 1 differ" in only(check_data([path]), Kind.REPEATED).message


def test_tags_of_another_form_are_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"text": "a b", "ner": ["B_x", "O"]})
    assert "B_x, O; they are read as B-x, O" in only(check_data([path]), Kind.SCHEME).message


def test_white_space_at_the_ends_of_labels_is_no_part_of_them_in_check_and_training(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.csv"
    path.write_text('id,text,label\n1,"a, b", question\n2,c,question\n3,d,answer \n')
    report = check_data([str(path)], {"c": CLASS})
    assert report.ok
    assert Kind.ALIKE not in report.counts
    assert report.files[0].tasks["c"].labels == {"question": 2, "answer": 1}
    assert discover_labels({"c": CLASS}, [str(path)])["c"].names == ("answer", "question")
    tags = write(tmp_path / "x.jsonl", {"text": "a b c", "ner": [" B-x", "O", "B-x "]})
    assert not check_data([tags], {"t": TAGS}).findings


def test_labels_that_differ_in_the_encoding_of_accents_are_one(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"text": "a", "label": "caf\u00e9"},
                 {"text": "b", "label": "cafe\u0301"})  # fmt: skip
    tasks = check_data([path]).files[0].tasks
    assert tasks["classification"].labels == {"caf\u00e9": 2}
