"""The report repeats the evaluation's numbers and adds causes and advice."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from io import BytesIO, TextIOWrapper
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from manyheads.api import evaluate, report
from manyheads.cli import main
from manyheads.config import Config
from manyheads.data.records import Record
from manyheads.data.suspects import Suspect
from manyheads.errors import RequestError
from manyheads.evaluation import EvaluationReport, bootstrap_interval
from manyheads.evaluation.report import Report, Surroundings, error_lines, make_report
from manyheads.evaluation.report import report as report_of
from manyheads.evaluation.report.changes import changes, mcnemar
from manyheads.evaluation.report.confidence import confidence_of
from manyheads.evaluation.report.data import MAX_ERRORS, MAX_POINTS, MAX_TEXT
from manyheads.evaluation.report.geometry import nearest_rows, plane, sentence_plane
from manyheads.tasks import (
    ClassResult,
    Decision,
    Entity,
    Pair,
    Scheme,
    Span,
    TaggingResult,
    TaskSpec,
    ValueResult,
)
from manyheads.tasks.metrics import Ratio
from outcomes import evaluation_of
from training_setup import NAMES, run, sentences, settings, write_records

INTENT = TaskSpec("intent", "classification", ("ask", "buy", "tell"))
NER = TaskSpec("ner", "tagging", ("O", "B-LOC", "I-LOC"), scheme=Scheme.BIO, decoder="linear")
PRICE = TaskSpec("price", "regression", (), details={"mean": 0.0, "deviation": 1.0})
SAME = TaskSpec("same", "pair", ("no", "yes"))


def chosen(label: str, score: float) -> ClassResult:
    return ClassResult(label, INTENT.labels.index(label), score)


def mixed(count: int, wrong: int) -> EvaluationReport:
    """Records of two tasks; `wrong` of them, spread evenly, are taken for `tell`."""
    records, results = [], []
    for i in range(count):
        is_wrong = i % (count // wrong) == 0
        text = f"is {'Rome' if i % 2 else 'Oslo'} far, {i}"
        labels = {"intent": ("ask", "buy")[i % 2], "ner": (Span(3, 7, "LOC"),)}
        records.append(Record(text, None, labels, f"data:{i}", (("mail", "chat")[i % 2],)))
        found = () if is_wrong else (Entity(text[3:7], "LOC", 3, 7, 0.8),)
        intent = chosen("tell" if is_wrong else labels["intent"], 0.9)  # type: ignore[arg-type]
        results.append({"intent": intent, "ner": TaggingResult(found, ())})
    return evaluation_of([INTENT, NER], records, results)


def test_every_number_is_that_of_the_evaluation() -> None:
    evaluated = mixed(60, 6)
    made = make_report(evaluated)
    assert made.evaluation == evaluated.to_json()
    for task in made.tasks:
        metrics: Any = evaluated.evaluation["tasks"][task.name]
        assert task.metrics == {k: v for k, v in metrics.items() if isinstance(v, float)}
        assert task.score == metrics[task.metric]
        assert task.low is not None
        assert task.high is not None
        assert task.low <= task.score <= task.high
        reports = metrics.get("per_class", metrics.get("per_type"))
        for label in task.labels:
            one = reports[label.label]
            shown = (label.precision, label.recall, label.f1, label.support)
            assert shown == (one["precision"], one["recall"], one["f1"], one["support"])
            rows = [c for c in task.cells if c.gold == label.label]
            assert sum(c.count for c in rows) == label.support
            hits = sum(c.count for c in rows if c.predicted == label.label)
            assert hits == pytest.approx(label.recall * label.support)
        assert task.confidence is not None
        precision = metrics["accuracy" if task.name == "intent" else "precision"]
        assert task.confidence.precision == pytest.approx(precision)
        trust = evaluated.confidence[task.name]
        assert task.confidence.calibration_error == trust["ece"]
        bins = task.confidence.bins
        assert (
            sum(b.right + b.wrong for b in bins)
            == trust["answers"]
            == sum(map(sum, task.confidence.histogram))
        )
        off = sum(abs(b.score * (b.right + b.wrong) - b.right) for b in bins)
        assert off / trust["answers"] == pytest.approx(trust["ece"])
    frame = evaluated.evaluation["frame_accuracy"]
    assert frame is not None
    assert made.frame_interval is not None
    assert made.frame_interval[0] <= frame <= made.frame_interval[1]
    assert made.wrong_records == len(made.errors) == 6


def test_slices_by_a_custom_field_add_up() -> None:
    evaluated = mixed(60, 6)
    for task in make_report(evaluated, ["channel"]).tasks:
        parts = task.slices["channel"]
        assert [(s.value, s.records) for s in parts] == [("chat", 30), ("mail", 30)]
        if task.metric == "accuracy":
            assert sum(s.score * s.records for s in parts) / 60 == pytest.approx(task.score)


def test_slices_count_words_of_all_scripts() -> None:
    texts = ["我想明天早上去上海", "मुझे कल दिल्ली से मुंबई", "I want to fly, home!"]
    records = [Record(text, None, {"intent": "ask"}, "") for text in texts]
    results = [{"intent": chosen("ask", 0.6)} for _ in texts]
    beside = Surroundings([Record("मैं दिल्ली में, I want to fly home", None, {}, "")])
    [task] = make_report(evaluation_of([INTENT], records, results), (), beside).tasks
    assert [(s.value, s.records) for s in task.slices["length"]] == [
        ("1 to 5 words", 2), ("6 to 10 words", 1),
    ]  # fmt: skip
    assert [(s.value, s.records) for s in task.slices["words unseen in training"]] == [
        ("none", 1), ("2 words or more", 2),
    ]  # fmt: skip


def test_the_label_in_most_errors_comes_first_with_its_cause() -> None:
    golds = ["ask"] * 8 + ["buy"] * 4 + ["tell"] * 2
    founds = ["buy"] * 6 + ["ask"] * 2 + ["buy"] * 4 + ["tell"] * 2
    records = [Record(f"text {i}", None, {"intent": g}, "") for i, g in enumerate(golds)]
    results = [{"intent": chosen(f, 0.6)} for f in founds]
    training = [Record("a", None, {"intent": "ask"}, "")] * 40 + records[8:9]
    beside = Surroundings(training)
    [task] = make_report(evaluation_of([INTENT], records, results), (), beside).tasks
    assert [f.label for f in task.findings] == ["ask", "buy"]
    assert task.findings[0].cause == "confused buy"
    assert "confused with buy 6 times" in task.findings[0].advice
    assert "only 1 training records have it" in task.findings[1].advice
    assert task.verdict[0].startswith("intent: accuracy 0.5714 (95 % interval 0.")
    assert "1 of 3 labels have an F1 of 0.9 or more; the best: tell (1.00)." in task.verdict[1]
    assert {x.label: x.training for x in task.labels} == {"ask": 40, "buy": 1, "tell": 0}
    assert [s.value for s in task.slices["rarest label in training"]] == [
        "never", "1 to 9 records", "10 to 49 records",
    ]  # fmt: skip


def test_a_label_confused_with_many_others_is_not_blamed_on_one_of_them() -> None:
    names = tuple(f"label {i}" for i in range(9))
    spec = TaskSpec("intent", "classification", names)
    records = [Record(f"{i}", None, {"intent": names[0]}, "") for i in range(8)]
    results = [{"intent": ClassResult(names[i + 1], i + 1, 0.5)} for i in range(8)]
    [task] = make_report(evaluation_of([spec], records, results)).tasks
    advice = task.findings[0].advice
    assert advice.startswith("confused with 8 other labels 8 times, most often label 1 (1): add")


def test_numbers_and_pairs_have_their_place_in_the_report() -> None:
    records = [
        Record(f"text {i}", None, {"price": float(i), "same": Pair("other", "yes")}, f"d:{i}")
        for i in range(5)
    ]
    results = [
        {"price": ValueResult(i + i / 10), "same": ClassResult("no", 0, 0.7)} for i in range(5)
    ]
    made = make_report(evaluation_of([PRICE, SAME], records, results))
    price, same = made.tasks
    assert (price.metric, price.low, price.confidence, price.labels) == ("spearman", None, None, ())
    assert same.errors == {"wrong class": 5}
    answers = [error.tasks.get("price") for error in made.errors]
    assert [a and a.wrong[0][2] for a in answers] == [None, *["far off"] * 4]
    assert made.errors[0].text2 == "other"


def test_of_similarities_those_out_of_the_order_of_the_scores_are_errors() -> None:
    scores, cosines = (5.0, 4.0, 5.0, 0.0, 2.0), (0.9, 0.2, 0.95, 0.5, 0.4)
    records = [
        Record(f"text {i}", None, {"near": Pair("other", score)}, f"d:{i}")
        for i, score in enumerate(scores)
    ]
    near = TaskSpec("near", "similarity", ())
    results: Any = [{"near": cosine} for cosine in cosines]
    made = make_report(evaluation_of([near], records, results))
    assert (made.evaluation["frame_accuracy"], made.frame_interval) == (None, None)
    # The third and the first agree, whatever the range of the scores.
    assert [error.row for error in made.errors] == [1, 3]


def test_what_the_page_holds_is_bounded() -> None:
    count = MAX_ERRORS + 100
    text = "x" * (MAX_TEXT + 50)
    end = len(text)
    records = [
        Record(text, None, {"intent": "ask", "ner": (Span(0, 1, "LOC"), Span(5, end, "LOC"))}, "")
    ] * count
    result = {"intent": chosen("buy", 0.5), "ner": TaggingResult((), ())}
    evaluated = evaluation_of([INTENT, NER], records, [result] * count)
    beside = Surroundings(embed=lambda texts: np.eye(len(texts), 3, dtype=np.float32) + 1)
    made = make_report(evaluated, (), beside)
    assert (len(made.errors), made.wrong_records) == (MAX_ERRORS, count)
    assert made.errors[0].is_cut
    assert len(made.errors[0].text) == MAX_TEXT
    assert made.errors[0].tasks["ner"].gold == [{"start": 0, "end": 1, "label": "LOC"}]
    assert made.sentences is not None
    assert len(made.sentences.x) == MAX_POINTS
    assert "5,000 of the 5,100 records with an error are listed" in made.notes[0]
    assert sum(1 for _ in error_lines(evaluated)) == count


def test_the_nearest_training_sentences_are_shown_with_their_labels() -> None:
    places = {"a": (1, 0), "b": (0.9, 0.1), "c": (0, 1), "d": (-1, 0), "Rome x": (0.5, 0.5)}

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([places[text] for text in texts], np.float32)

    records = [Record("a", None, {"intent": "ask"}, "")]
    training = [
        Record("d", None, {"intent": "ask"}, ""),
        Record("Rome x", None, {"ner": (Span(0, 4, "LOC"),)}, ""),
        Record("b", None, {"intent": "buy", "ner": ()}, ""),
    ]
    evaluated = evaluation_of([INTENT], records, [{"intent": chosen("buy", 0.5)}])
    [error] = make_report(evaluated, (), Surroundings(training, embed)).errors
    assert [(n.text, n.labels) for n in error.near] == [
        ("b", "intent: buy; ner: none"),
        ("Rome x", "ner: Rome (LOC)"),
        ("d", "intent: ask"),
    ]


def test_confidence_counts_scores_that_are_right() -> None:
    decisions = [
        Decision("a", "a", "", 0.95), Decision("a", "b", "wrong class", 0.95),
        Decision("a", "a", "", 0.55), Decision("a", None, "missed"),
    ]  # fmt: skip
    found = confidence_of(decisions)
    assert found is not None
    [one] = found.bins  # too few predictions for two
    assert (one.right, one.wrong, one.low, one.high) == (2, 1, 0.55, 0.95)
    assert [bar for bar in found.histogram if bar != (0, 0)] == [(1, 0), (1, 1)]
    assert [(t.score, t.coverage, t.precision, t.recall) for t in found.thresholds] == [
        (0.95, pytest.approx(2 / 3), 0.5, 0.25), (0.55, 1.0, pytest.approx(2 / 3), 0.5),
    ]  # fmt: skip
    assert found.calibration_error == pytest.approx(2.45 / 3 - 2 / 3)
    assert confidence_of([Decision("a", "b", "wrong class")]) is None


def test_the_map_shows_the_directions_of_most_variance() -> None:
    random = np.random.default_rng(0)
    spread = random.normal(size=(50, 4)) * [5, 0.1, 2, 0.1]
    points, share = plane(spread.astype(np.float32))
    assert share > 0.99
    assert np.abs(np.corrcoef(points[:, 0], spread[:, 0])[0, 1]) > 0.99
    assert np.abs(np.corrcoef(points[:, 1], spread[:, 2])[0, 1]) > 0.99
    rows, cosines = nearest_rows(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32) * 3, 5)
    assert rows.tolist() == [[0, 1], [1, 0]]
    assert cosines.tolist() == [[1, 0], [1, 0]]


def test_without_umap_or_with_few_sentences_the_map_is_the_projection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    with monkeypatch.context() as context:
        context.setitem(sys.modules, "umap", None)  # importing it fails
        points, share = sentence_plane(vectors)
        assert np.array_equal(points, plane(vectors)[0])
        assert share == plane(vectors)[1]
    asked: list[dict[str, Any]] = []

    def umap(**options: Any) -> Any:
        asked.append(options)
        return SimpleNamespace(fit_transform=lambda rows: rows[:, :2])

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=umap))
    points, share = sentence_plane(vectors)
    assert (share, asked) == (None, [{"metric": "cosine", "random_state": 0, "n_jobs": 1}])
    assert np.array_equal(points, vectors[:, :2])
    assert sentence_plane(vectors[:40])[1] is not None


def test_umap_keeps_groups_apart_and_repeats_itself() -> None:
    pytest.importorskip("umap", reason="pip install umap-learn")
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 8)).astype(np.float32) + np.repeat(np.eye(8)[:2] * 9, 30, 0)
    points, _ = sentence_plane(vectors.astype(np.float32))
    again, _ = sentence_plane(vectors.astype(np.float32))
    assert np.array_equal(points, again)
    centres = points[:30].mean(axis=0), points[30:].mean(axis=0)
    spread = np.linalg.norm(points[:30] - centres[0], axis=1).mean()
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * spread


def test_an_interval_narrows_with_more_sentences() -> None:
    few, many = (Ratio.accuracy([True, False, True, True] * n) for n in (5, 500))
    wide, narrow = bootstrap_interval(few), bootstrap_interval(many)
    assert wide[0] < narrow[0] < 0.75 < narrow[1] < wide[1]
    assert bootstrap_interval(Ratio.accuracy([True] * 9)) == (1.0, 1.0)


def test_each_label_has_the_interval_of_its_own_f1() -> None:
    found = make_report(mixed(60, 6))
    for task in found.tasks:
        for label in task.labels:
            if label.support:
                assert label.low is not None
                assert label.high is not None
                assert label.low <= label.f1 <= label.high
                assert label.high - label.low < 0.5


def test_what_changed_between_two_models_is_listed_and_tested() -> None:
    before, after = mixed(60, 12), mixed(60, 6)
    found = changes(before, after)
    task = found.tasks[0]
    assert (task.name, task.metric, task.better, task.worse) == ("intent", "accuracy", 6, 0)
    assert task.after == after.evaluation["tasks"]["intent"]["accuracy"]
    assert task.low is not None
    assert task.high is not None
    assert task.low > 0.0 < task.after - task.before < task.high
    assert task.p_value == pytest.approx(2 / 2**6)
    [first, *_] = [one for one in found.records if one.task == "intent"]
    assert (first.is_better, first.gold, first.before, first.after) == (True, "buy", "tell", "buy")
    assert "6 records became right, 0 wrong (McNemar's test: p 0.031)." in found.in_words()[0]
    same = changes(after, after)
    assert same.records == ()
    assert "p 1.000): this can be chance" in same.in_words()[0]
    with pytest.raises(RequestError, match="scored on different records"):
        changes(mixed(50, 5), after)


@pytest.mark.parametrize(("better", "worse", "p"), [(3, 12, 0.0352), (0, 0, 1), (700, 610, 0.0139)])
def test_mcnemars_test_is_that_of_the_literature(better: int, worse: int, p: float) -> None:
    """The values are those of scipy's two-sided binomial test, and of the corrected chi-square."""
    assert mcnemar(better, worse) == pytest.approx(p, abs=1e-4)
    assert mcnemar(worse, better) == mcnemar(better, worse)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its training data beside it."""
    result, _ = run(tmp_path_factory.mktemp("reported"), num_epochs=2)
    return result.save_dir


@pytest.mark.filterwarnings("ignore:.*no task reads the field 'channel':UserWarning")
def test_the_report_of_a_model_equals_its_evaluation(trained: Path, tmp_path: Path) -> None:
    rows = [{**row, "channel": "mail"} for row in sentences(12, 5)]
    path = write_records(tmp_path / "new.jsonl", [*rows, {**rows[0], "channel": "chat"}])
    found: Report = report(trained, path, slices=["channel"], out=tmp_path / "r.html")
    in_memory = report(trained, [*rows, {**rows[0], "channel": "chat"}])
    assert in_memory.evaluation["tasks"] == found.evaluation["tasks"]
    assert found.evaluation == evaluate(trained, path).to_json()
    assert "<title>" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert [epoch.epoch for epoch in found.epochs] == [1, 2]
    assert found.sentences is not None
    assert found.errors[0].near
    assert {s.value for s in found.tasks[0].slices["channel"]} == {"chat", "mail"}
    assert json.loads(json.dumps(found.to_json()))["wrong_records"] == found.wrong_records


@pytest.mark.parametrize("is_of_task", [False, True])
def test_another_model_is_compared_on_the_validation_file_as_the_first_one_reads_it(
    tmp_path: Path, is_of_task: bool
) -> None:
    records = [{"phrase": f"word {n}", "sort": "xy"[n % 2]} for n in range(12)]
    path = str(write_records(tmp_path / "data.jsonl", records))
    files = {"train_file": path, "valid_file": path}
    task: dict[str, Any] = {"kind": "classification"}
    if is_of_task:
        names = {"phrase": "text", "sort": "label"}
        changes = {"tasks": {"sort": {**task, **files, "map": names}}} | dict.fromkeys(files)
    else:
        changes = {"tasks": {"sort": task}, "text_field": "phrase", "map": {"sort": "label"}}
        changes |= files
    model = Path(run(tmp_path, **changes)[0].save_dir)
    found = report(model, against=model, drift=False).changes
    assert found is not None
    assert [task.name for task in found.tasks] == ["sort"]


def test_a_field_for_slices_that_no_record_has_is_refused_with_the_nearest_one(
    trained: Path, tmp_path: Path, capsys: Any
) -> None:
    rows = [{**row, "id": i, "channel": "mail"} for i, row in enumerate(sentences(12, 5))]
    path = write_records(tmp_path / "new.jsonl", rows)
    assert main(["report", str(trained), "--file", str(path), "--slice", "chanel"]) == 2
    said = capsys.readouterr().err
    assert "no task reads the fields 'id', 'channel'\n" in said
    assert "no record has the field 'chanel' (did you mean \"channel\"?); expected a field" in said
    assert ", channel. Correct --slice." in said


def test_the_commands_write_the_report_and_the_errors(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(trained), "--no-drift"]) == 0
    assert "Report: report.html (" in capsys.readouterr().out
    assert main(["report", str(trained), "--no-drift", "--format", "md", "--out", "-"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("# What the model gets wrong\n")
    assert not Path("report.md").exists()
    assert main(["report", str(trained), str(trained), "--no-drift", "--out", "two.md"]) == 0
    assert "+0.0000 from" in capsys.readouterr().out
    assert "## What changed from" in Path("two.md").read_text("utf-8")
    command = ["evaluate", str(trained), "--no-drift", "--errors", "e.jsonl", "--json", "s.json"]
    assert main(command) == 0
    lines = [json.loads(line) for line in Path("e.jsonl").read_text("utf-8").splitlines()]
    scores = json.loads(Path("s.json").read_text("utf-8"))
    frames = scores["records"] - len(lines)
    assert frames / scores["records"] == pytest.approx(scores["frame_accuracy"])
    assert lines[0].keys() == {"text", "where", "tasks"}
    answers = [answer for line in lines for answer in line["tasks"].values()]
    assert all(answer["wrong"] for answer in answers)
    assert Counter(map(tuple, answers)) == {("gold", "predicted", "scores", "wrong"): len(answers)}


@pytest.mark.parametrize("form", ["html", "md"])
def test_a_report_on_standard_output_is_utf_8_whatever_the_locale(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    path = write_records(tmp_path / "zoë.jsonl", sentences(12, 5))
    written = BytesIO()
    monkeypatch.setattr("sys.stdout", TextIOWrapper(written, encoding="latin-1"))
    command = ["report", str(trained), "--file", str(path), "--no-drift", "--format", form]
    assert main([*command, "--out", "-"]) == 0
    assert "zoë.jsonl" in written.getvalue().decode("utf-8")


@pytest.mark.parametrize("command", ["evaluate", "report", "calibrate"])
def test_a_layout_without_a_file_is_refused(trained: Path, capsys: Any, command: str) -> None:
    assert main([command, str(trained), "--map", "said=text"]) == 2
    assert capsys.readouterr().err == (
        "error: the layout of a file is given, but no file; expected both or neither: the "
        "validation files are read as the model's configuration says. Name the file: --file FILE.\n"
    )


def test_training_and_report_show_the_accuracy_of_plain_tags(tmp_path: Path, capsys: Any) -> None:
    for name in ("train", "valid"):
        records = [
            {"tokens": one["tokens"], "pos": ["NOUN" if t in NAMES else "X" for t in one["tokens"]]}
            for one in sentences(12, 1)
        ]
        write_records(tmp_path / f"{name}.jsonl", records)
    tasks = {"pos": {"kind": "tagging", "field": "pos", "scheme": "plain"}}
    values = settings(tmp_path, num_epochs=1, tasks=tasks)
    (tmp_path / "config.yaml").write_text(json.dumps(values))
    assert main(["train", str(tmp_path / "config.yaml")]) == 0
    said = capsys.readouterr().out.split("\n")
    header = said[said.index("Epochs") + 1 :][:3]
    assert "accuracy" in header[-1]
    assert " f1" not in "".join(header)
    made = report(tmp_path / "saved", drift=False)
    [task], [epoch] = made.tasks, made.epochs
    assert task.metric == "token_accuracy"
    assert epoch.scores == {"pos": task.score}


def test_training_writes_the_report_when_asked_to(tmp_path: Path, capsys: Any) -> None:
    values = settings(tmp_path, num_epochs=1)
    path = tmp_path / "config.yaml"
    path.write_text("".join(f"{name}: {value}\n" for name, value in values.items()))
    assert (
        main(["train", str(path), "--num-classes", "2", "--num-ner-labels", "5", "--report"]) == 0
    )
    page = tmp_path / "saved" / "report.html"
    assert f"Report: {page}" in capsys.readouterr().out
    assert "<title>" in page.read_text("utf-8")


def test_suspect_labels_of_the_training_data_are_listed_on_request(trained: Path) -> None:
    asked: list[tuple[str, list[str]]] = []

    def find(path: str, config: Config) -> list[Suspect]:
        asked.append((Path(path).name, list(config.tasks)))
        return [Suspect(1, path, "a", "ner", "missing", score, None, None) for score in (1.0, 2.0)]

    found = report_of(trained, suspects=find, drift=False)
    assert asked == [("train.jsonl", ["classification", "ner"])]
    assert found.suspects is not None
    assert [one.score for one in found.suspects] == [2.0, 1.0]
    assert report_of(trained, drift=False).suspects is None

    def refuse(path: str, config: Config) -> list[Suspect]:
        raise RequestError("the labels are numbers")

    found = report_of(trained, suspects=refuse, drift=False)
    assert found.suspects == ()
    assert "the labels are not checked: the labels are numbers" in found.notes
