"""The page at `/`, in Chromium, against a real server."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import served_model, serving

REQUIRED = os.environ.get("MANYHEADS_BROWSER") == "required"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
INSTALL = "apt-get install chromium, and pip install playwright axe-core-python"

try:
    from axe_core_python.sync_playwright import Axe
    from playwright.sync_api import Browser, Page, expect, sync_playwright
except ImportError:
    if REQUIRED:
        raise
    pytest.skip(f"needs Playwright: {INSTALL}", allow_module_level=True)

if CHROMIUM is None:
    if REQUIRED:
        raise RuntimeError(f"there is no Chromium: {INSTALL}")
    pytest.skip(f"needs Chromium: {INSTALL}", allow_module_level=True)

SENTENCE = "John lives in Paris"
KEY = "page-key"


@pytest.fixture(scope="module")
def server() -> Iterator[httpx.Client]:
    with serving(served_model()) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


class Visit:
    """A page, and the errors it reported."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.problems: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        self.page.goto(url)

    def _note(self, message: Any) -> None:
        # The browser also reports a refused request as an error.
        if message.type in ("error", "warning") and "status of 4" not in message.text:
            self.problems.append(message.text)

    def ask(self, text: str = SENTENCE) -> None:
        self.page.get_by_label("A sentence").fill(text)
        self.page.get_by_role("button", name="Predict").click()


@pytest.fixture
def visit(server: httpx.Client, browser: Browser) -> Iterator[Visit]:
    visit = Visit(browser, str(server.base_url))
    yield visit
    visit.context.close()
    assert visit.problems == []
    assert visit.hosts == {server.base_url.netloc.decode()}


def check_look(visit: Visit, width: int, image: Path) -> None:
    """Check that a page is accessible and not wider than the window, and save its picture."""
    found = Axe().run(visit.page)["violations"]
    assert [(v["id"], [n["html"] for n in v["nodes"]]) for v in found] == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    folder = Path(os.environ.get("MANYHEADS_SCREENSHOTS", image.parent))
    visit.page.screenshot(path=folder / image.name, full_page=True)
    visit.context.close()


def test_a_sentence_gets_classes_entities_and_timing(visit: Visit) -> None:
    page = visit.page
    expect(page.locator("#about")).to_contain_text("intent (classification), ner (tagging)")
    visit.ask()
    expect(page.get_by_role("heading", name="Answer")).to_be_visible()
    expect(page.locator("#tasks button[aria-pressed=true]")).to_contain_text("%")
    expect(page.locator("#timing")).to_contain_text("ms")
    expect(page.locator(".marked")).to_contain_text("John")


def test_undecided_results_and_texts_out_of_scope_are_marked(visit: Visit) -> None:
    page = visit.page
    classes = [{"label": "question", "id": 0, "score": 0.5}]
    entity = {"text": "Paris", "label": None, "start": 14, "end": 19, "score": 0.4}
    answer = {
        "text": SENTENCE, "windows": 1, "in_scope": 0.25,
        "intent": {"label": None, "id": None, "score": 0.5, "candidates": classes},
        "ner": {"entities": [{**entity, "candidates": [{"label": "LOC", "score": 0.4}]}]},
    }  # fmt: skip
    body = {"model": "tiny", "version": "1", "milliseconds": 1.0, "predictions": [answer]}
    page.route("**/v1/predict", lambda route: route.fulfill(json=body))
    visit.ask()
    expect(page.locator("#scope")).to_have_text("Perhaps none of these: in scope 25.0 %")
    expect(page.locator("#tasks")).to_contain_text("Undecided: no class is certain enough.")
    expect(page.locator("#tasks button[aria-pressed=true]")).to_have_count(0)
    expect(page.locator("mark.undecided")).to_have_text("ParisLOC? 40.0 %")


def test_a_text_from_right_to_left_is_laid_out_so(visit: Visit) -> None:
    page = visit.page
    text = "دانا تسكن في London."
    entities = [
        {"text": "دانا", "label": "PER", "start": 0, "end": 4, "score": 0.9},
        {"text": "London", "label": "LOC", "start": 13, "end": 19, "score": 0.8},
    ]
    answer = {
        "text": text, "windows": 1, "ner": {"entities": entities},
        "intent": {"label": "statement", "id": 1, "score": 0.9},
    }  # fmt: skip
    body = {"model": "tiny", "version": "1", "milliseconds": 1.0, "predictions": [answer]}
    page.route("**/v1/predict", lambda route: route.fulfill(json=body))
    visit.ask(text)
    for place in ("#text", ".marked", "#history button"):
        expect(page.locator(place)).to_have_css("direction", "rtl")
    name, town = (page.locator("mark", has_text=label).bounding_box() for label in ("PER", "LOC"))
    label = page.locator("mark b", has_text="PER").bounding_box()
    assert name is not None
    assert town is not None
    assert label is not None
    # The first word is at the right border, its label and the last word are to the left of it.
    assert town["x"] + town["width"] < name["x"]
    assert label["x"] + label["width"] / 2 < name["x"] + name["width"] / 2
    visit.ask("John lives in Paris")
    expect(page.locator("#text")).to_have_css("direction", "ltr")


def test_the_nearest_examples_are_shown(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text('{"text": "Mary lives in Rome", "intent": "statement"}\n')
    with serving(served_model(), examples=file) as client:
        visit = Visit(browser, str(client.base_url))
        visit.ask()
        expect(visit.page.locator("#neighbours tr")).to_contain_text("Mary lives in Rome")
        expect(visit.page.locator("#neighbours tr")).to_contain_text("intent: statement")
        assert visit.problems == []
        visit.context.close()


def test_a_text_stays_text(visit: Visit) -> None:
    visit.ask("<img src=x onerror=alert(1)> <b>Paris</b>")
    expect(visit.page.locator(".marked")).to_contain_text("<img src=")
    assert visit.page.locator("#tasks img").count() == 0
    expect(visit.page.locator("#history button")).to_have_text(
        "<img src=x onerror=alert(1)> <b>Paris</b>"
    )


def test_a_corrected_answer_is_downloaded_as_training_data(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    visit.ask()
    other = page.locator("#tasks button[aria-pressed=false]").first
    label = other.locator("span").first.inner_text()
    other.click()
    expect(page.locator("#tasks button[aria-pressed=true]")).to_contain_text(label)
    # Words that are selected become an entity.
    page.locator(".marked").evaluate(
        """line => {
          const walker = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
          let node;
          while ((node = walker.nextNode())) {
            const at = node.textContent.indexOf("lives");
            if (at >= 0) {
              getSelection().setBaseAndExtent(node, at, node, at + 5);
              line.dispatchEvent(new MouseEvent("mouseup", { bubbles: true }));
              return;
            }
          }
        }"""
    )
    page.get_by_label("Type").select_option("PER")
    page.get_by_role("button", name="Set").click()
    expect(page.locator("mark", has_text="lives")).to_contain_text("PER")
    page.get_by_role("button", name="Keep as a correction").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download corrections").click()
    download.value.save_as(tmp_path / "corrections.jsonl")
    record = json.loads((tmp_path / "corrections.jsonl").read_text())
    assert record["text"] == SENTENCE
    assert record["intent"] == label
    assert {"start": 5, "end": 10, "label": "PER"} in record["ner"]


def test_many_lines_make_a_table_to_sort_and_download(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    visit.ask("where is Mary ?\nJohn lives in Paris\nthe weather")
    rows = page.locator("#rows tr")
    expect(rows).to_have_count(3)
    page.get_by_role("button", name="text", exact=True).click()
    texts = [rows.nth(i).locator("td").first.inner_text() for i in range(3)]
    assert texts == ["John lives in Paris", "the weather", "where is Mary ?"]
    expect(page.locator("th").first).to_have_attribute("aria-sort", "ascending")
    for button, name in (("Download CSV", "predictions.csv"), ("JSON lines", "predictions.jsonl")):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        download.value.save_as(tmp_path / name)
        assert "John lives in Paris" in (tmp_path / name).read_text()


def test_a_table_tells_a_task_called_error_from_a_refused_text(visit: Visit) -> None:
    page = visit.page
    error = {"label": "none", "id": 0, "score": 0.5}
    tasks = [{"name": "error", "kind": "classification", "labels": ["none", "some"]}]
    model = {"id": "tiny", "version": "1", "backend": "torch", "examples": 0, "tasks": tasks}
    page.route("**/v1/models", lambda route: route.fulfill(json={"data": [model]}))
    found = [{"text": "a", "windows": 1, "error": error}, {"error": {"message": "it is empty"}}]
    body = {"model": "tiny", "version": "1", "milliseconds": 1.0, "predictions": found}
    page.route("**/v1/predict", lambda route: route.fulfill(json=body))
    page.reload()
    visit.ask("a\nb")
    expect(page.locator("#rows tr")).to_have_text(["anone50.0 %", "bit is empty"])


def test_cells_that_a_spreadsheet_would_compute_are_downloaded_as_text(
    visit: Visit, tmp_path: Path
) -> None:
    visit.ask('=HYPERLINK("http://x") lives\n+1 word\n-1 word\n@SUM word\nplain = word')
    expect(visit.page.locator("#rows tr")).to_have_count(5)
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name="Download CSV").click()
    download.value.save_as(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    assert texts == [
        '\'=HYPERLINK("http://x") lives', "'+1 word", "'-1 word", "'@SUM word", "plain = word",
    ]  # fmt: skip


def test_every_example_of_the_documentation_runs(server: httpx.Client, browser: Browser) -> None:
    visit = Visit(browser, f"{server.base_url}/docs")
    page = visit.page
    sections = page.locator("section")
    expect(sections).to_have_count(9)
    for i in range(9):
        sections.nth(i).get_by_role("button").click()
        expect(sections.nth(i).locator("pre")).to_have_text(re.compile("^200 OK\\s.+"))
    assert visit.problems == []
    assert visit.hosts == {server.base_url.netloc.decode()}
    visit.context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1200)])
def test_the_documentation_is_accessible_and_fits(
    server: httpx.Client, browser: Browser, scheme: str, width: int, tmp_path: Path
) -> None:
    visit = Visit(
        browser, f"{server.base_url}/docs", color_scheme=scheme, bypass_csp=True,
        viewport={"width": width, "height": 800},
    )  # fmt: skip
    expect(visit.page.locator("section")).to_have_count(9)
    check_look(visit, width, tmp_path / f"docs-{scheme}-{width}.png")


def test_the_records_of_a_file_are_predicted(visit: Visit, tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "one"}\n{"tokens": ["two", "words"]}\n')
    visit.page.get_by_label("Open a file of sentences").set_input_files(file)
    expect(visit.page.locator("#rows tr")).to_have_count(2)
    file.write_text('{"text": "one"}\n{"label": 1}\n')
    visit.page.get_by_label("Open a file of sentences").set_input_files(file)
    expect(visit.page.get_by_role("alert")).to_have_text(
        "Line 2 of the file has no text or tokens."
    )
    table = tmp_path / "texts.csv"
    table.write_text('label,Text\nx,"""hi"", Paris"\ny,"two\nlines"\nz,three\n')
    visit.page.get_by_label("Open a file of sentences").set_input_files(table)
    expect(visit.page.locator("#rows tr td:first-child")).to_have_text(
        ['"hi", Paris', "two lines", "three"]
    )
    table.write_text("label,sentence\nx,three\n")
    visit.page.get_by_label("Open a file of sentences").set_input_files(table)
    expect(visit.page.get_by_role("alert")).to_have_text("The file has no column named text.")


def test_the_history_repeats_a_prediction(visit: Visit) -> None:
    visit.ask("first")
    expect(visit.page.locator(".marked")).to_contain_text("first")
    visit.ask("second")
    expect(visit.page.locator(".marked")).to_contain_text("second")
    visit.page.locator("#history button", has_text="first").click()
    expect(visit.page.locator(".marked")).to_contain_text("first")


def test_the_page_works_with_the_keyboard_alone(visit: Visit) -> None:
    page = visit.page
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.type(SENTENCE)
    page.keyboard.press("Enter")
    expect(page.locator("#answer")).to_be_visible()
    page.locator("#tasks button[aria-pressed=false]").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Add an entity").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Last word").focus()
    page.keyboard.type("lives")
    expect(page.locator("#choose-text")).to_have_text("John lives")
    page.get_by_role("button", name="Set").focus()
    page.keyboard.press("Enter")
    mark = page.locator("mark", has_text="John lives")
    expect(mark).to_be_visible()
    mark.focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).not_to_be_visible()


def test_an_error_is_shown(visit: Visit) -> None:
    visit.ask("x" * 60_000)
    expect(visit.page.get_by_role("alert")).to_contain_text("at most 50,000 are allowed")
    visit.ask(" ")
    expect(visit.page.get_by_role("alert")).to_contain_text("Type a sentence")


def test_a_server_with_keys_asks_for_one(browser: Browser) -> None:
    with serving(served_model(), api_keys=(KEY,)) as client:
        visit = Visit(browser, str(client.base_url))
        visit.page.get_by_label("Key").fill(KEY)
        visit.page.get_by_label("Key").press("Tab")
        expect(visit.page.locator("#about")).to_contain_text("intent")
        visit.ask()
        expect(visit.page.locator("#answer")).to_be_visible()
        visit.context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 360), ("dark", 1200)])
def test_the_page_is_accessible_and_fits(
    server: httpx.Client, browser: Browser, scheme: str, width: int, tmp_path: Path
) -> None:
    visit = Visit(
        browser, str(server.base_url), color_scheme=scheme, bypass_csp=True,
        viewport={"width": width, "height": 800},
    )  # fmt: skip
    visit.ask("where is Mary ?\nJohn lives in Paris")
    expect(visit.page.locator("#rows tr")).to_have_count(2)
    visit.ask(SENTENCE)
    expect(visit.page.locator("#answer")).to_be_visible()
    visit.page.get_by_role("button", name="Keep as a correction").click()
    check_look(visit, width, tmp_path / f"{scheme}-{width}.png")


def test_the_policy_allows_nothing_but_the_page_itself(server: httpx.Client) -> None:
    for path in ("/", "/docs"):
        policy = server.get(path).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
        assert "http" not in policy
