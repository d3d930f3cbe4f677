"""Sentences with entities and intents, and files of them as tools write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from files import lines

QUICK = settings(max_examples=40)


@dataclass(frozen=True)
class Sample:
    """A sentence of words with single spaces, entities by first and last word, and an intent."""

    words: tuple[str, ...]
    spans: tuple[tuple[int, int, str], ...]
    label: str

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def entities(self) -> list[dict[str, Any]]:
        found = []
        for first, last, label in self.spans:
            start = len(" ".join(self.words[:first])) + (first > 0)
            end = start + len(" ".join(self.words[first : last + 1]))
            found.append({"start": start, "end": end, "label": label})
        return found

    @property
    def tags(self) -> list[str]:
        tags = ["O"] * len(self.words)
        for first, last, label in self.spans:
            tags[first : last + 1] = [f"{'BI'[i > 0]}-{label}" for i in range(last - first + 1)]
        return tags

    def pieces(self) -> list[tuple[str, str | None]]:
        """The text cut at its entities."""
        found: list[tuple[str, str | None]] = []
        end = 0
        for item in self.entities:
            found += [(self.text[end : item["start"]], None)] * (item["start"] > end)
            found.append((self.text[item["start"] : item["end"]], item["label"]))
            end = item["end"]
        return found + [(self.text[end:], None)] * (end < len(self.text))


names = st.sampled_from(["city", "date", "artist_name"])
words = st.text(alphabet="abcXYZ019é中", min_size=1, max_size=5)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    some = draw(st.lists(words, min_size=1, max_size=7))
    spans, start = [], 0
    while start < len(some) and draw(st.booleans()):
        first = draw(st.integers(start, len(some) - 1))
        last = draw(st.integers(first, min(first + 2, len(some) - 1)))
        spans.append((first, last, draw(names)))
        start = last + 1
    return Sample(tuple(some), tuple(spans), draw(st.sampled_from(["alarm_set", "greet", "bye"])))


def markup(sample: Sample, form: str) -> str:
    return "".join(
        text if label is None else form.format(text=text, label=label)
        for text, label in sample.pieces()
    )


def by_intent(items: Sequence[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for item in items:
        found.setdefault(item.label, []).append(item)
    return found


def label_studio(items: Sequence[Sample]) -> str:
    def result(item: Sample) -> list[Any]:
        spans = [
            {"from_name": "ner", "to_name": "text", "type": "labels",
             "value": {"start": e["start"], "end": e["end"], "labels": [e["label"]]}}
            for e in item.entities
        ]  # fmt: skip
        choice = {"from_name": "intent", "to_name": "text", "type": "choices",
                  "value": {"choices": [item.label]}}  # fmt: skip
        return [*spans, choice]

    tasks = [
        {"id": i, "data": {"text": item.text}, "annotations": [
            {"was_cancelled": True, "result": []}, {"was_cancelled": False, "result": result(item)}
        ]}
        for i, item in enumerate(items)
    ]  # fmt: skip
    # The first span of a file shows which question the spans answer.
    return json.dumps(tasks, indent=2)


def label_studio_min(items: Sequence[Sample]) -> str:
    return json.dumps(
        [
            {"id": 1, "text": i.text, "annotator": 1, "annotation_id": 2, "lead_time": 3.5,
             "intent": {"choices": [i.label]}}
            | ({"ner": [{"start": e["start"], "end": e["end"], "labels": [e["label"]],
                         "text": i.text[e["start"] : e["end"]]} for e in i.entities]}
               if i.spans else {})
            for i in items
        ]
    )  # fmt: skip


def prodigy(items: Sequence[Sample]) -> str:
    return lines(
        [
            {"text": i.text, "accept": [i.label], "options": [], "_task_hash": 1,
             "_view_id": "blocks", "answer": "accept", "spans": i.entities,
             "tokens": [{"text": w, "id": n, "start": 0, "end": 1} for n, w in enumerate(i.words)]}
            for i in items
        ]
    )  # fmt: skip


def doccano(items: Sequence[Sample]) -> str:
    return lines(
        [
            {"id": 1, "text": i.text, "cats": [i.label], "Comments": [],
             "entities": [[e["start"], e["end"], e["label"]] for e in i.entities]}
            for i in items
        ]
    )  # fmt: skip


def spacy_pairs(items: Sequence[Sample]) -> str:
    return json.dumps(
        [
            [i.text, {"entities": [[e["start"], e["end"], e["label"]] for e in i.entities],
                      "cats": {"greet": 0.0, "bye": 0.0, "alarm_set": 0.0, i.label: 1.0}}]
            for i in items
        ],
        indent=1,
    )  # fmt: skip


def rasa_json(items: Sequence[Sample]) -> str:
    examples = [
        {"text": i.text, "intent": i.label, "entities": [
            {"start": e["start"], "end": e["end"], "entity": e["label"]} for e in i.entities]}
        for i in items
    ]  # fmt: skip
    data = {"regex_features": [{"name": "zip"}], "common_examples": examples}
    return json.dumps({"rasa_nlu_data": data}, indent=1)


def rasa_yaml(items: Sequence[Sample]) -> str:
    return 'version: "3.1"\nnlu:\n- lookup: city\n  examples: |\n    - Oslo\n' + "".join(
        f"- intent: {i.label}\n  examples: |\n    - {markup(i, '[{text}]({label})')}\n"
        for i in items
    )


def rasa_markdown(items: Sequence[Sample]) -> str:
    return "## synonym:x\n- y\n\n" + "".join(
        f"## intent:{i.label}\n- {markup(i, '[{text}]({label}:x)')}\n\n" for i in items
    )


def snips(items: Sequence[Sample]) -> str:
    return json.dumps(
        {
            intent: [
                {"data": [{"text": t} | ({"entity": e} if e else {}) for t, e in i.pieces()]}
                for i in some
            ]
            for intent, some in by_intent(items).items()
        }
    )


def luis(items: Sequence[Sample]) -> str:
    utterances = [
        {"text": i.text, "intent": i.label, "entities": [
            {"entity": e["label"], "startPos": e["start"], "endPos": e["end"] - 1}
            for e in i.entities]}
        for i in items
    ]  # fmt: skip
    return json.dumps({"luis_schema_version": "7.0.0", "intents": [], "utterances": utterances})


def clu(items: Sequence[Sample]) -> str:
    utterances = [
        {"text": i.text, "intent": i.label, "entities": [
            {"category": e["label"], "offset": e["start"], "length": e["end"] - e["start"]}
            for e in i.entities]}
        for i in items
    ]  # fmt: skip
    head = {"projectFileVersion": "2023-04-01", "stringIndexType": "Utf16CodeUnit"}
    return json.dumps(head | {"assets": {"intents": [], "utterances": utterances}}, indent=1)


def massive(items: Sequence[Sample]) -> str:
    return lines(
        [
            {"id": "1", "partition": "train", "intent": i.label, "utt": i.text,
             "annot_utt": markup(i, "[{label} : {text}]")}
            for i in items
        ]
    )  # fmt: skip


def hwu(items: Sequence[Sample]) -> str:
    return "userid;scenario;intent;answer_annotation;answer\n" + "".join(
        f"1;alarm;{i.label};{markup(i, '[{label} : {text}]')};{i.text}\n" for i in items
    )


WITH_BOTH: dict[str, tuple[str, Callable[[Sequence[Sample]], str]]] = {
    "label-studio": ("x.json", label_studio),
    "prodigy": ("x.jsonl", prodigy),
    "doccano": ("x.jsonl", doccano),
    "spacy": ("x.json", spacy_pairs),
    "rasa-json": ("x.json", rasa_json),
    "rasa": ("nlu.yml", rasa_yaml),
    "rasa-markdown": ("nlu.md", rasa_markdown),
    "snips": ("x.json", snips),
    "luis": ("x.json", luis),
    "clu": ("x.json", clu),
    "massive": ("x.jsonl", massive),
    "hwu": ("x.csv", hwu),
}
