"""The report opens offline, shows texts as texts, and leads from a number to its sentences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import browser
from manyheads.data.records import Record
from manyheads.data.suspects import Suspect
from manyheads.display.report import html_page, markdown
from manyheads.evaluation.report import Epoch, Report, Surroundings, make_report
from manyheads.evaluation.report.changes import changes
from manyheads.evaluation.report.data import CurvePoint, LearningCurve
from manyheads.tasks import ClassResult, Entity, Pair, Scheme, Span, TaggingResult, TaskSpec
from outcomes import evaluation_of

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">"
TEXT = f"\U0001f600 Rome {HOSTILE} <b>&amp; \u2028 \ud800"
INTENT = TaskSpec("intent", "classification", ("ask", "buy", HOSTILE))
NER = TaskSpec(
    HOSTILE, "tagging", ("O", f"B-{HOSTILE}", f"I-{HOSTILE}"), scheme=Scheme.BIO, decoder="linear"
)


def hostile_report(count: int = 60) -> Report:
    records, results = [], []
    for i in range(count):
        labels = {"intent": INTENT.labels[i % 3], HOSTILE: (Span(2, 6, HOSTILE),)}
        records.append(Record(f"{TEXT} {i}", None, labels, HOSTILE, (f"{HOSTILE}{i % 2}",)))
        found = (Entity("Rome", HOSTILE, 2, 6, 0.5),) if i % 2 else ()
        intent = ClassResult("ask", 0, round(0.3 + i / 100, 2))
        results.append({"intent": intent, HOSTILE: TaggingResult(found, ())})
    epochs = tuple(Epoch(i, i == 2, {"intent": 1 / i}, {"intent": 0.5}) for i in (1, 2))
    random = np.random.default_rng(0)
    beside = Surroundings(
        records[:3], lambda texts: random.random((len(texts), 4), np.float32), epochs, (HOSTILE,)
    )
    evaluated = evaluation_of([INTENT, NER], records, results)
    others = [{**one, "intent": ClassResult("buy", 1, 0.9)} for one in results]
    entity = {"start": 2, "end": 6, "label": HOSTILE}
    suspects = (
        Suspect(1, HOSTILE, TEXT, HOSTILE, "superfluous", 2.5, entity, None),
        Suspect(2, HOSTILE, TEXT, "intent", "wrong class", 1.5, HOSTILE, "ask"),
    )
    points = [CurvePoint(16 << k, 0.3 + k / 10, 0.25 + k / 10, 0.36 + k / 10) for k in range(6)]
    check = CurvePoint(128, 0.7, 0.65, 0.75)
    curve = LearningCurve(
        HOSTILE,
        "f1",
        3,
        tuple(points[:4]),
        tuple(points[4:]),
        0.1,
        0.0,
        0.2,
        (1.0, 0.4, 0.3),
        check,
    )
    return replace(
        make_report(evaluated, [HOSTILE], beside),
        curves=(curve,),
        changes=changes(evaluation_of([INTENT, NER], records, others), evaluated),
        suspects=suspects,
    )


def test_the_data_cannot_leave_their_element() -> None:
    page = html_page(hostile_report())
    page.encode()
    assert page.count("</script>") == page.count("<script") == 2
    [stored] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert not set("<>&\u2028\ud800") & set(stored)
    read = json.loads(stored)
    assert read["errors"][0]["text"] == f"{TEXT} 0"
    assert len(read["errors"]) == read["wrong_records"]


def test_the_policy_allows_only_the_pages_own_script_and_style() -> None:
    page = html_page(hostile_report())
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    parts = dict(part.split(" ", 1) for part in policy.split("; "))
    assert parts["default-src"] == parts["base-uri"] == parts["form-action"] == "'none'"
    assert re.fullmatch(r"'sha256-[\w+/]{43}='", parts["script-src"])
    assert re.fullmatch(r"'sha256-[\w+/]{43}='", parts["style-src"])
    [stored] = re.findall(r'id="data">(.*?)</script>', page)
    assert not re.findall(
        r"\b(?:src|href)=|url\(|@import|innerHTML|\beval\(|\son\w+=", page.replace(stored, "")
    )


def test_markdown_shows_labels_as_text() -> None:
    text = markdown(hostile_report())
    assert "<img" not in text.replace(r"\<img", "")
    assert "| task | metric | score | 95 % interval | records |" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} <= {3, 4, 5, 6, 7, 10}
    assert "| 512 (extrapolated) | 0.8000 | 0.7500 to 0.8600 |" in text
    text.encode()


def test_markdown_shows_each_change_with_its_interval() -> None:
    made = hostile_report()
    assert made.changes is not None
    change = made.changes.tasks[0]
    rows = [line.strip("| ").split(" | ") for line in markdown(made).splitlines()]
    head = next(row for row in rows if "difference" in row)
    shown = dict(zip(head, rows[rows.index(head) + 2], strict=True))
    assert shown["difference"] == f"{change.after - change.before:+.4f}"
    assert shown["95 % interval"] == f"{change.low:.4f} to {change.high:.4f}"


def test_markdown_leaves_out_what_is_unknown() -> None:
    near, pair = TaskSpec("near", "similarity", ()), {"near": Pair("other", 1.0)}
    evaluated = evaluation_of([near], [Record("text", None, pair, "")], [{"near": 0.9}])
    drift = {"cosine": 0.75, "similarity_correlation": None, "sentences": 2}
    scores: Any = {**evaluated.evaluation, "drift": drift}
    text = markdown(make_report(replace(evaluated, evaluation=scores)))
    assert "Drift of the embedding: cosine 0.7500\n" in text
    assert "Frame accuracy" not in text


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture
def page(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    """The report in a window as wide as a phone's; nothing is refused or fails in it."""
    (tmp_path / "report.html").write_text(html_page(hostile_report()), encoding="utf-8")
    context = chromium.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    opened, problems, requests = context.new_page(), [], []
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto((tmp_path / "report.html").as_uri())
    yield opened
    assert problems == []
    assert requests == [(tmp_path / "report.html").as_uri()]
    context.close()


def shown(page: Any) -> str:
    return str(page.locator("#found").inner_text())


def test_hostile_texts_and_labels_are_shown_as_they_are(page: Any) -> None:
    assert page.title() == "Report: model"
    assert page.locator("img").count() == 0
    mark = page.locator("#list mark").first
    assert mark.evaluate("(m) => m.firstChild.textContent") == "Rome"
    assert mark.locator("b").inner_text().startswith(HOSTILE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_epochs_of_a_run_on_all_records_have_losses_alone(chromium: Any, tmp_path: Path) -> None:
    file, page = tmp_path / "report.html", chromium.new_page()
    for scores, said in (({"ner": 0.5}, "Best epoch: 2"), ({}, "No epoch was validated")):
        epochs = tuple(Epoch(n, n == 2, {"ner": 1 / n}, scores) for n in (1, 2))
        file.write_text(html_page(replace(hostile_report(), epochs=epochs)), encoding="utf-8")
        page.goto(file.as_uri())
        shown = page.locator("#curve").inner_text()
        assert said in shown
        assert "Training loss" in shown
        assert ("Main metric on the validation data" in shown) == bool(scores)
    page.close()


def test_a_text_from_right_to_left_is_laid_out_so(chromium: Any, tmp_path: Path) -> None:
    text = "דנה גרה ב-London."
    spec = TaskSpec("ner", "tagging", ("O", "B-PER", "I-PER"), scheme=Scheme.BIO, decoder="linear")
    records = [Record(text, None, {"ner": (Span(0, 3, "PER"),)}, "a.jsonl:1")]
    results = [{"ner": TaggingResult((Entity("London", "PER", 10, 16, 0.5),), ())}]
    nothing = Surroundings(records, lambda texts: np.ones((len(texts), 4), np.float32), (), ())
    report = make_report(evaluation_of([spec], records, results), [], nothing)
    (tmp_path / "report.html").write_text(html_page(report), encoding="utf-8")
    page = chromium.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    gold, predicted = page.locator("#list .marked").all()
    for line in (gold, predicted):
        assert line.evaluate("(e) => getComputedStyle(e).direction") == "rtl"
    first, last = gold.locator("mark").bounding_box(), predicted.locator("mark").bounding_box()
    assert last["x"] + last["width"] < first["x"]
    label = gold.locator("mark b").bounding_box()
    assert label["x"] + label["width"] / 2 < first["x"] + first["width"] / 2
    page.close()


def test_a_cell_of_the_matrix_leads_to_its_sentences(page: Any) -> None:
    assert shown(page) == "50 of 50 records, page 1 of 3"
    page.get_by_role("button", name="gold buy, predicted ask: 20").click()
    assert shown(page) == "20 of 50 records, page 1 of 1"
    assert page.locator("#chosen").inner_text() == "gold buy, predicted ask"
    assert page.evaluate("document.activeElement.id") == "errors-title"
    page.get_by_role("button", name="Back to where you were").press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "20"
    page.get_by_role("button", name="Show all").click()
    assert page.get_by_role("button", name="Back to where you were").count() == 0
    page.get_by_role("button", name="predicted (none): 30").click()
    assert shown(page) == "30 of 50 records, page 1 of 2"


def test_errors_are_found_by_kind_text_and_slice_with_only_the_keyboard(page: Any) -> None:
    page.locator("#task-1 button", has_text="missed").press("Enter")
    assert shown(page) == "30 of 50 records, page 1 of 2"
    page.locator("#after").press("Enter")
    assert page.locator("#list article").count() == 10
    page.keyboard.press("/")
    page.keyboard.type("rome")
    assert shown(page) == "30 of 50 records, page 1 of 2"
    page.keyboard.type(" no such text")
    assert shown(page) == "0 of 50 records, page 1 of 1"
    page.locator("#task-0 button", has_text=f"{HOSTILE}1").first.press("Enter")
    assert shown(page) == "20 of 50 records, page 1 of 1"


def test_a_point_of_the_reliability_diagram_leads_to_its_errors(page: Any) -> None:
    page.locator("#task-0 .dot.link").last.press("Enter")
    assert page.locator("#chosen").inner_text() == "score 0.70 to 0.89"
    assert shown(page) == "14 of 50 records, page 1 of 1"


def test_what_changed_and_suspect_labels_are_listed(page: Any) -> None:
    changed = page.locator("#changes")
    assert changed.locator("article").count() == 20
    assert changed.locator("#change-page").inner_text() == "Page 1 of 1"
    changed.locator("select").select_option("")
    assert changed.locator("#change-page").inner_text() == "Page 1 of 2"
    first, second = page.locator("#suspects article").all()
    assert first.locator("mark").evaluate("(m) => m.firstChild.textContent") == "Rome"
    assert "proposal" in first.inner_text()
    assert HOSTILE in second.inner_text()


def test_the_learning_curve_by_records_shows_what_is_measured_and_what_is_not(page: Any) -> None:
    part = page.locator("#records")
    assert "frozen" in part.locator("p").first.inner_text()
    assert part.locator("svg circle").count() == 4
    rows = part.locator("tbody tr").all_inner_texts()
    assert rows[0].split("\t") == ["16", "0.3000", "0.2500 to 0.3600"]
    assert rows[-1].split("\t") == ["512, extrapolated", "0.8000", "0.7500 to 0.8600"]
    assert "Twice the 128 training records would raise f1 by 0.100" in (
        page.locator("#verdict").inner_text()
    )


def test_the_threshold_reads_off_coverage_and_precision(page: Any) -> None:
    page.locator("#threshold-intent").press("Home")
    text = page.locator("#task-0").inner_text()
    assert "Score at least 0.890: 1.7 % of the predictions, 0.0 % of them right" in text


def test_the_verdict_is_grouped_by_task(page: Any) -> None:
    verdict = page.locator("#verdict")
    assert verdict.locator("h3").all_inner_texts() == ["intent", HOSTILE]
    assert verdict.locator("ul").first.inner_text().startswith("Accuracy 0.")


def test_the_map_explains_only_the_colours_that_it_has(page: Any) -> None:
    assert page.locator("#map-task").input_value() == "intent"
    assert "buy" in page.locator("#map").inner_text()
    assert "no label" not in page.locator("#map").inner_text()


def test_the_title_of_an_axis_stands_above_the_curve(page: Any) -> None:
    chart = page.locator("#task-0").get_by_label("Precision by coverage")
    title = chart.get_by_text("precision", exact=True).bounding_box()
    assert title["y"] + title["height"] <= chart.locator(".curve").bounding_box()["y"]
