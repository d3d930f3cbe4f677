"""Tables and progress: plain and complete in a pipe, live on a terminal, never interleaved."""

from __future__ import annotations

import dataclasses
import io
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.control import strip_control_codes

from manyheads.data.check import DataReport, FileSummary, Finding, Kind, Lengths, TaskSummary
from manyheads.display import (
    Counter,
    EpochTable,
    TrainingProgress,
    confusion_table,
    data_sections,
    duration,
    evaluation_tables,
    plain,
    rate,
    show,
)
from manyheads.tasks.metrics import (
    Evaluation,
    classification_metrics,
    multilabel_metrics,
    similarity_metrics,
    tagging_metrics,
)
from manyheads.training import StepReport
from outcomes import tagged_text

KINDS = {
    "intent": "classification",
    "topics": "multilabel",
    "ner": "tagging",
    "likeness": "similarity",
}
MAIN = {"intent": "accuracy", "ner": "f1"}


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Ascii(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii")

    def text(self) -> str:
        self.flush()
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode()


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)


def evaluation(labels: tuple[str, ...] = ("book", "play")) -> Evaluation:
    return {
        "tasks": {
            "intent": classification_metrics([0, 1, 1, -1], [0, 1, 0, 0], labels),
            "topics": multilabel_metrics([frozenset({0})], [frozenset({0, 1})], labels),
            "ner": tagging_metrics(
                [tagged_text(["B-PER", "O", "B-LOC"])],
                [tagged_text(["B-PER", "O", "B-PER"])],
            ),
            "likeness": similarity_metrics([0.0, 0.5, 1.0], [0.1, 0.7, 0.6]),
        },
        "frame_accuracy": 0.25,
        "records": 1234,
    }


def history(*scores: float) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for i, score in enumerate(scores):
        entries.append(
            {
                "epoch": i + 1,
                "step": 10 * (i + 1),
                "loss": {"intent": 0.5, "ner": 0.25},
                "score": score,
                "best": score > max(scores[:i], default=-1.0),
                "metrics": evaluation(),
            }
        )
    return entries


def cells(text: str, first: str) -> list[str]:
    """The words of the line that begins with a word."""
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [first])


def strip_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# Tables


def test_an_evaluation_in_a_pipe_has_every_task_and_label_and_no_control_characters() -> None:
    stream = io.StringIO()
    show(evaluation_tables(evaluation(), KINDS), stream)
    text = stream.getvalue()
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "Evaluation of 1,234 records" in text
    header = "task of accuracy precision recall f1 macro f1 micro spearman pearson"
    assert " ".join(text.splitlines()[1].split()) == header
    assert cells(text, "intent")[:3] == ["intent", "classes", "0.5000"]
    assert cells(text, "topics")[1:4] == ["classes", "0.0000", "0.5000"]
    assert cells(text, "ner") == [
        "ner", "tags", "0.6667", "0.5000", "0.5000", "0.3333", "0.5000", "-", "-",
    ]  # fmt: skip
    assert cells(text, "likeness")[-2:] == ["0.5000", "0.7777"]
    for label in ("book", "play", "<unknown>", "PER", "LOC"):
        assert cells(text, label), label
    assert "frame accuracy (every task of a record right): 0.2500" in text
    assert cells(text, "<unknown>") == ["<unknown>", "0.0000", "0.0000", "0.0000", "1"]


def test_without_an_answer_that_is_right_or_wrong_there_is_no_frame_accuracy() -> None:
    pairs = similarity_metrics([0.0, 0.5, 1.0], [0.1, 0.7, 0.6])
    of_pairs: Evaluation = {"tasks": {"likeness": pairs}, "frame_accuracy": None, "records": 3}
    text = plain(evaluation_tables(of_pairs, KINDS))
    assert "likeness" in text
    assert "frame accuracy" not in text


def test_columns_in_a_pipe_do_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    sections = evaluation_tables(evaluation(("a" * 50, "b" * 50)), KINDS)
    monkeypatch.setenv("COLUMNS", "30")
    narrow = plain(sections)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert plain(sections) == narrow
    assert "a" * 50 in narrow
    table = narrow.split("\n\n")[0].splitlines()[1:6]
    assert table[0].startswith("task ")
    assert len({len(line) for line in table}) == 1  # numbers are aligned to the right


def test_a_given_width_is_kept() -> None:
    text = plain(evaluation_tables(evaluation(("a" * 50, "b" * 50)), KINDS), width=50)
    table = text.split("\n\n")[1].splitlines()
    assert max(map(len, table)) <= 50
    assert "precision" in table[1]


@pytest.mark.parametrize("width", [20, 60, 80])
def test_however_narrow_the_terminal_no_number_is_broken_or_lost(width: int) -> None:
    stream = Terminal()
    pair: Any = {"gold": "play", "predicted": "book", "count": 1234}
    show([confusion_table("intent", [pair])], stream, width=width)
    assert cells(strip_styles(stream.getvalue()), "play") == ["play", "book", "1,234"]


def test_a_terminal_gets_lines_under_the_headers() -> None:
    stream = Terminal()
    show(evaluation_tables(evaluation(), KINDS), stream)
    assert "───" in stream.getvalue()
    assert "\x1b[1m" in stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_label_can_neither_control_the_terminal_nor_style_the_table(terminal: bool) -> None:
    stream = Terminal() if terminal else io.StringIO()
    show(evaluation_tables(evaluation(("\x1b]0;title\x07\n", "[red]x[/red]")), KINDS), stream)
    text = stream.getvalue()
    assert r"\x1b]0;title\x07\n" in text
    assert "[red]x[/red]" in text
    assert "\x1b]" not in text


def test_a_label_of_a_megabyte_is_cut() -> None:
    text = plain(evaluation_tables(evaluation(("x" * 1_000_000, "b")), KINDS))
    assert "x" * 57 + "..." in text
    assert len(text) < 5000


def test_letters_that_the_output_does_not_have_are_escaped() -> None:
    stream = Ascii()
    show(evaluation_tables(evaluation(("é", "b")), KINDS), stream)
    assert r"\xe9" in stream.text()


def test_of_many_labels_the_worst_are_shown_and_the_rest_counted() -> None:
    labels = [f"label{i}" for i in range(60)]
    gold = list(range(60))
    predicted = [*range(50), *[50] * 10]
    sections = evaluation_tables(
        {
            "tasks": {"intent": classification_metrics(gold, predicted, labels)},
            "frame_accuracy": 0.0,
            "records": 60,
        },
        KINDS,
        max_labels=12,
    )
    text = plain([sections[1]])
    assert all(f"label{i} " in text for i in range(51, 60))
    assert "the 12 labels with the lowest F1; 48 more are not shown" in text


def test_an_epoch_is_a_row_below_a_header_that_stands_once() -> None:
    table = EpochTable(MAIN, frames=True)
    assert table.header() == [
        "Epochs",
        "        intent     ner                 intent     ner     frame",
        " epoch    loss    loss  sentences/s  accuracy      f1  accuracy   score",
    ]
    first, second = history(0.5, 0.75)
    assert table.row(first).split() == [
        "1", "0.5000", "0.2500", "-", "0.5000", "0.5000", "0.2500", "0.5000", "kept",
    ]  # fmt: skip
    assert table.row(second, 1234.4).split()[3] == "1,234"


def test_epochs_without_a_frame_accuracy_have_no_column_for_it() -> None:
    results = io.StringIO()
    progress = TrainingProgress(file=io.StringIO(), results=results)
    progress.begin(20, 0, {"first": "spearman", "second": "spearman"})
    metrics: dict[str, object] = {"tasks": {}, "frame_accuracy": None, "records": 3}
    progress.epoch([{**entry, "metrics": metrics} for entry in history(0.5)])
    progress.epoch([{**entry, "metrics": metrics} for entry in history(0.5, 0.6)])
    progress.end()
    assert "frame" not in results.getvalue()
    assert results.getvalue().count("score") == 1


@pytest.mark.parametrize("count", [1, 2, 3, 5, 30])
def test_the_table_of_epochs_fits_a_terminal_whatever_the_tasks(count: int) -> None:
    table = EpochTable(
        {f"a_task_of_long_name_{number}": "token_accuracy" for number in range(count)}, frames=True
    )
    entry = {**history(0.5)[0], "loss": {}}
    lines = [*table.header(), table.row(entry)]
    assert max(map(len, lines)) <= 80
    assert lines[-1].split()[-2:] == ["0.5000", "kept"]


# The data check


def data_report(findings: tuple[Finding, ...], counts: dict[Kind, int]) -> DataReport:
    def file(path: str, labels: dict[str, int], **changes: Any) -> FileSummary:
        lengths = Lengths.of([3, 4, 5])
        summary = FileSummary(
            path=path,
            records=1234,
            broken=0,
            complete=True,
            tasks={
                "intent": TaskSummary("classification", 1200, 34, labels, 1200),
                "ner": TaskSummary("tagging", 1234, 0, {"PER": 7}, 6),
            },
            words=lengths,
            tokens=lengths,
            truncated=5,
            words_lost=17,
            labels_lost=2,
            duplicates=1,
            leaks=0,
        )
        return dataclasses.replace(summary, **changes)

    files = (
        file("data/train.json", {"play": 900, "book": 300}),
        file("data/valid.json", {"book": 1200}, leaks=3, broken=1, complete=False),
    )
    return DataReport(files, findings, counts, 128)


def test_a_data_check_shows_files_lengths_labels_and_findings() -> None:
    leak = Finding(Kind.LEAK, "valid.json:3", "the text is also in train.json:9", "Remove one.")
    twice = Finding(Kind.DUPLICATE, "train.json:5", "the text stands in train.json:2 too")
    report = data_report((twice, leak), {Kind.LEAK: 3, Kind.DUPLICATE: 1})
    files, lengths, intent, ner, findings = plain(data_sections(report)).rstrip().split("\n\n")

    assert cells(files, "data/train.json")[1:] == ["1,234", "0", "1", "0", "5", "17", "2"]
    assert cells(files, "data/valid.json")[1:] == ["1,234", "1", "1", "3", "5", "17", "2"]
    assert "data/valid.json: not read to its end" in files
    assert "longer than 128 sub-tokens" in files
    assert cells(lengths, "data/train.json")[1:] == ["words", "4.0", "4", "5", "5", "5", "5"]
    assert lengths.count("sub-tokens") == 2
    assert intent.startswith("intent: classification labels\n")
    assert [line.split() for line in intent.splitlines()[1:4]] == [
        ["label", "train.json", "valid.json"],
        ["book", "300", "1,200"],
        ["play", "900", "0"],
    ]
    assert "train.json: 1,200 labelled, 34 not" in intent
    assert "valid.json: 1,234 labelled (6 not empty), 0 not" in ner
    assert findings.splitlines() == [
        "Findings: 3 errors, 1 warning",
        "error: valid.json:3: the text is also in train.json:9. Remove one.",
        "warning: train.json:5: the text stands in train.json:2 too.",
        "error: 2 more of kind 'leak'",
    ]


def test_clean_data_are_reported_as_clean() -> None:
    text = plain(data_sections(data_report((), {})))
    assert text.endswith("Findings: nothing wrong was found\n\n")


def test_without_a_tokenizer_truncation_is_not_reported() -> None:
    report = data_report((), {})
    files = tuple(dataclasses.replace(file, tokens=None) for file in report.files)
    text = plain(data_sections(dataclasses.replace(report, files=files, max_length=None)))
    assert "truncated" not in text
    assert "sub-tokens" not in text


def test_files_of_the_same_name_differ_and_long_paths_keep_their_end() -> None:
    report = data_report((), {})
    paths = ("a/" * 50 + "train.json", "b/train.json")
    files = tuple(
        dataclasses.replace(file, path=path) for file, path in zip(report.files, paths, strict=True)
    )
    text = plain(data_sections(dataclasses.replace(report, files=files)))
    assert "\n..." in text
    assert "a/a/train.json  " in text
    assert "a/" * 30 not in text
    assert cells(text, "label") == ["label", "a/train.json", "b/train.json"]


def test_the_findings_cannot_control_the_terminal() -> None:
    finding = Finding(Kind.LABELS, "\x1b]0;x\x07.json:1", "label '[red]'")
    for stream in (io.StringIO(), Terminal()):
        show(data_sections(data_report((finding,), {Kind.LABELS: 1})), stream)
        assert r"\x1b]0;x\x07.json:1: label '[red]'." in strip_styles(stream.getvalue())
        assert "\x1b]" not in stream.getvalue()


def test_of_very_many_labels_the_most_frequent_are_shown() -> None:
    report = data_report((), {})
    many = {f"label{i}": 100 - i for i in range(60)}
    task = TaskSummary("classification", 1, 0, many, 1)
    files = (dataclasses.replace(report.files[0], tasks={"intent": task}),)
    text = plain(data_sections(dataclasses.replace(report, files=files), max_labels=3))
    assert "label2 " in text
    assert "label3" not in text
    assert "the 3 most frequent labels; 57 more are not shown" in text


# Progress of training


def trained(progress: TrainingProgress, clock: Clock, steps: int) -> None:
    for i in range(steps):
        clock.now += 0.5 if i % 2 else 0.25
        progress.step(StepReport(("intent", "ner")[i % 2], 1.0 + i % 2, 16, 100))


def test_without_a_terminal_a_plain_line_appears_every_interval() -> None:
    stream, clock = io.StringIO(), Clock()
    with TrainingProgress(file=stream, interval=3.0, clock=clock) as progress:
        progress.begin(1000, 0, MAIN)
        trained(progress, clock, 17)
    first, second = stream.getvalue().splitlines()
    assert first == (
        "Training: 8/1,000 steps, 6:30 left; intent loss 1.0000 64 sentences/s 400 tokens/s; "
        "ner loss 2.0000 32 sentences/s 200 tokens/s"
    )
    assert second.startswith("Training: 16/1,000 steps, ")


def test_progress_never_writes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with TrainingProgress(interval=0.0, clock=clock) as progress:
        progress.begin(10, 0, MAIN)
        trained(progress, clock, 4)
        progress.message("Evaluating ...")
    list(Counter("Predicting").track(range(3)))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Evaluating ..." in captured.err
    assert "Training: 4/10 steps" in captured.err


def test_the_table_after_an_epoch_is_a_result_with_the_epochs_speed() -> None:
    stream, results, clock = io.StringIO(), io.StringIO(), Clock()
    progress = TrainingProgress(file=stream, results=results, clock=clock)
    progress.begin(20, 0, MAIN)
    trained(progress, clock, 9)
    clock.now += 1000  # evaluation
    progress.epoch(history(0.5))
    clock.now += 1000  # saving
    trained(progress, clock, 2)
    progress.epoch(history(0.5, 0.6))
    progress.end()
    assert results.getvalue().count("Epochs") == 1
    last = results.getvalue()
    assert len(last.splitlines()) == 5  # the header has three
    assert cells(last, "1")[3] == "43"  # 8 timed steps of 16 sentences in 3 seconds
    assert cells(last, "2")[3] == "32"  # one in half a second


def test_the_bar_follows_the_true_step_at_the_end_of_an_epoch() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = TrainingProgress(file=stream, results=io.StringIO(), interval=0, clock=clock)
    progress.begin(20, 0, MAIN)
    trained(progress, clock, 7)  # three steps were left out: their loss was not finite
    progress.epoch(history(0.5))
    assert "Training: 10/20 steps" in stream.getvalue().splitlines()[-1]
    progress.end()


def test_a_step_of_several_tasks_counts_once_and_gives_each_its_speed() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = TrainingProgress(file=stream, interval=0.0, clock=clock)
    progress.begin(10, 0, MAIN)
    for _ in range(3):
        clock.now += 1.0
        progress.step(StepReport("intent", 1.0, 16, 100))
        progress.step(StepReport("ner", 2.0, 16, 100, steps=0))
    progress.end()
    assert stream.getvalue().splitlines()[-1] == (
        "Training: 3/10 steps, 0:07 left; intent loss 1.0000 16 sentences/s 100 tokens/s; "
        "ner loss 2.0000 16 sentences/s 100 tokens/s"
    )


def test_the_loss_shown_is_smooth_and_survives_one_that_is_not_finite() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = TrainingProgress(file=stream, interval=0.0, clock=clock)
    progress.begin(10, 0, {"intent": "accuracy"})
    for loss in (1.0, float("nan"), 3.0):
        progress.step(StepReport("intent", loss, 1, 1))
    progress.end()
    lines = stream.getvalue().splitlines()
    assert "loss 1.0000" in lines[1]
    assert f"loss {(0.95 * 1 + 3) / 1.95:.4f}" in lines[2]


def test_a_resumed_run_starts_where_it_was() -> None:
    stream = io.StringIO()
    progress = TrainingProgress(file=stream, interval=0.0, clock=Clock())
    progress.begin(100, 60, MAIN)
    progress.step(StepReport("intent", 1.0, 16, 100))
    progress.end()
    assert stream.getvalue().startswith("Training: 61/100 steps")


def test_a_message_cannot_control_the_terminal() -> None:
    for stream in (io.StringIO(), Terminal()):
        progress = TrainingProgress(file=stream)
        progress.begin(10, 0, {})
        progress.message("two\nlines of \x1b]0;x\x07 [red]")
        progress.end()
        assert "two\n" in stream.getvalue().replace("\r", "")
        assert r"lines of \x1b]0;x\x07 [red]" in stream.getvalue()
        assert "\x1b]" not in stream.getvalue()


def test_a_terminal_gets_a_bar_that_goes_away_and_never_hides_the_cursor() -> None:
    stream, results, clock = Terminal(), io.StringIO(), Clock()
    standard = sys.stdout
    with TrainingProgress(file=stream, results=results, clock=clock) as progress:
        progress.begin(20, 0, MAIN)
        assert sys.stdout is standard
        trained(progress, clock, 9)
        progress.epoch(history(0.5))
        shown = stream.getvalue()
    assert "━" in shown
    assert "Training" in strip_control_codes(shown)
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "Epochs" in results.getvalue()
    assert "Epochs" not in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[2K")  # the bar's lines are erased


def test_the_bar_comes_back_below_the_table_and_erases_none_of_it() -> None:
    stream, clock = Terminal(), Clock()
    with TrainingProgress(file=stream, results=stream, clock=clock) as progress:
        progress.begin(20, 0, MAIN)
        trained(progress, clock, 9)
        progress.epoch(history(0.5))
        after = stream.getvalue().split("Epochs")[-1]
    assert "10/20 steps" in after
    assert "\x1b[1A" not in after[: after.index("Training")]


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream, clock = Terminal(), Clock()
    with TrainingProgress(file=stream, interval=0.0, clock=clock) as progress:
        progress.begin(4, 0, MAIN)
        trained(progress, clock, 4)
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count("Training: ") == 4


# Progress of other work


def test_tracked_items_come_through_with_rate_and_time_left() -> None:
    stream, clock = io.StringIO(), Clock()
    with Counter("Predicting", 40, file=stream, interval=2.0, clock=clock) as counter:
        for _ in range(4):
            clock.now += 1.0
            counter.advance(5)
    assert stream.getvalue().splitlines() == [
        "Predicting: 10/40 sentences, 5.0 sentences/s, 0:06 left",
        "Predicting: 20/40 sentences, 5.0 sentences/s, 0:04 left",
        "Predicting: 20 sentences, 5.0 sentences/s, 0:04 in all",
    ]


def test_items_that_come_in_groups_are_counted_by_groups() -> None:
    stream, clock = io.StringIO(), Clock()
    counter = Counter("Predicting", 5000, grouped=True, file=stream, interval=30.0, clock=clock)

    def groups() -> Iterator[int]:
        for size in (2000, 2000, 1000):
            clock.now += 40.0
            yield from range(size)
            counter.end_group()

    assert sum(1 for _ in counter.track(groups())) == 5000
    assert stream.getvalue().splitlines() == [
        "Predicting: 2,000/5,000 sentences, 50 sentences/s, 1:00 left",
        "Predicting: 4,000/5,000 sentences, 50 sentences/s, 0:20 left",
        "Predicting: 5,000/5,000 sentences, 42 sentences/s, 0:00 left",
        "Predicting: 5,000 sentences, 42 sentences/s, 2:00 in all",
    ]


def test_short_or_failed_work_ends_without_a_line() -> None:
    stream, clock = io.StringIO(), Clock()
    with Counter("Predicting", 40, file=stream, interval=30.0, clock=clock) as counter:
        clock.now += 29.0
        counter.advance(5)

    def fail() -> None:
        with Counter("Predicting", 40, file=stream, interval=30.0, clock=clock):
            clock.now += 31.0
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert stream.getvalue() == ""


def test_work_of_unknown_size_shows_what_is_done() -> None:
    stream, clock = io.StringIO(), Clock()
    with Counter("Reading", unit="records", file=stream, interval=0.0, clock=clock) as counter:
        clock.now += 2.0
        counter.advance(3000)
    assert stream.getvalue() == (
        "Reading: 3,000 records, 1,500 records/s\n"
        "Reading: 3,000 records, 1,500 records/s, 0:02 in all\n"
    )


@pytest.mark.parametrize("make", [io.StringIO, Terminal])
def test_track_passes_every_item_on_in_order(make: Callable[[], io.StringIO]) -> None:
    assert list(Counter("Predicting", 5, file=make()).track(range(5))) == [0, 1, 2, 3, 4]
    assert list(Counter("Predicting", file=make()).track("ab")) == ["a", "b"]


def test_a_terminal_shows_the_total() -> None:
    stream = Terminal()
    list(Counter("Predicting", 5, file=stream).track(range(5)))
    assert "5/5 sentences" in stream.getvalue()


def test_progress_that_is_not_wanted_is_not_shown() -> None:
    stream = Terminal()
    counter = Counter("Predicting", 5, file=stream, enabled=False)
    assert list(counter.track(range(5))) == [0, 1, 2, 3, 4]
    assert stream.getvalue() == ""


def test_a_failure_removes_the_bar() -> None:
    stream = Terminal()

    def fail() -> None:
        with Counter("Predicting", 4, file=stream) as counter:
            counter.advance()
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fail()
    assert stream.getvalue().endswith("\x1b[2K")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (65, "1:05"), (3599.6, "1:00:00"), (7384, "2:03:04")]
)
def test_durations_are_written_as_clocks_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "seconds", "text"),
    [(0, 1.0, ""), (5, 0.0, ""), (5, 2.0, "2.5 x/s"), (54321, 2.0, "27,160 x/s")],
)
def test_rates_are_as_precise_as_is_useful(count: int, seconds: float, text: str) -> None:
    assert rate(count, seconds, "x") == text
