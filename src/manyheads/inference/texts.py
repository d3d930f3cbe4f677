"""The inputs of prediction: texts, lists of tokens and pairs of texts, checked, in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Literal, NamedTuple

from manyheads.errors import RequestError, shorten
from manyheads.inference.until_fault import UntilFault
from manyheads.tasks import WordSpan


class TextPair(NamedTuple):
    """Two texts, for tasks that classify or score them together."""

    text: str
    text2: str


Text = str | Sequence[str] | TextPair
WhenEmpty = Literal["flag", "refuse"]

_CHUNK_CHARACTERS = 1 << 20


class CheckedText(NamedTuple):
    """An input text after its check."""

    number: int
    """Its place among all, from 1."""
    text: str
    tokens: list[WordSpan] | None
    """The characters of the user's tokens, if the text was given as such."""
    second: str | None = None
    """The second text of a pair."""


def chunked(texts: Iterable[Text], size: int, pairs: bool) -> Iterator[list[CheckedText]]:
    """Cut a stream of texts into lists of bounded size.

    Where the stream fails, the texts before come first.
    """
    characters = 0
    chunk: list[CheckedText] = []
    checked = UntilFault(_checked(text, n, pairs) for n, text in enumerate(texts, start=1))
    for text in checked:
        chunk.append(text)
        characters += len(text.text) + len(text.second or "")
        if len(chunk) >= size or characters >= _CHUNK_CHARACTERS:
            yield chunk
            characters, chunk = 0, []
    if chunk:
        yield chunk
    checked.raise_fault()


def check_texts(texts: object) -> None:
    """Refuse anything but a series of texts, and say how to make it one.

    Raises:
        RequestError: it is a single text or None, has no order, or its items are not texts.
    """
    if isinstance(texts, str | bytes):
        raise RequestError(
            f"one text, {shorten(texts)}, where texts were expected",
            expected="a list of texts",
            fix="Put the text into a list.",
        )
    fix = ""
    if hasattr(texts, "columns"):
        fix = 'Give its column of texts, data["text"], or use `manyheads.load(...).predict`.'
    elif isinstance(texts, Mapping):
        fix = 'Give a list of its texts, such as data["text"]; of several splits, choose one.'
    elif isinstance(texts, Set):
        fix = "A set has no order; make a list of it."
    elif not isinstance(texts, Iterable):
        fix = "Give a list, even for one text or none."
    if fix:
        kind = type(texts).__name__
        raise RequestError(f"the texts are a {kind}", expected="a list of texts", fix=fix)


def check_each(texts: Iterable[Text], pairs: bool) -> None:
    """Refuse texts one of which is invalid.

    Raises:
        RequestError: one is not a string or list of strings.
    """
    for number, text in enumerate(texts, start=1):
        _checked(text, number, pairs)


def _checked(text: Text, number: int, pairs: bool) -> CheckedText:
    """Check a text and, if it is a list of tokens, join them.

    Args:
        text: as the user gave it.
        number: its place among all.
        pairs: whether any tuple of two strings is a pair.
    """
    if isinstance(text, str):
        return CheckedText(number, text, None)
    if isinstance(text, TextPair) or (pairs and isinstance(text, tuple) and len(text) == 2):
        for one in text:
            if not isinstance(one, str):
                raise _not_a_text(one, number)
        return CheckedText(number, text[0], None, text[1])
    if not isinstance(text, Sequence) or isinstance(text, bytes):
        raise _not_a_text(text, number)
    if isinstance(text, tuple) and len(text) == 2:
        _refuse_pair(text, number)
    spans, start = [], 0
    for token in text:
        if not isinstance(token, str):
            raise _not_a_text(token, number)
        spans.append((start, start + len(token)))
        start += len(token) + 1
    return CheckedText(number, " ".join(text), spans)


def _refuse_pair(texts: tuple[object, ...], number: int) -> None:
    """Refuse a tuple of two strings, which is a pair of texts, for a model without a task of pairs.

    Raises:
        RequestError: it is one.
    """
    if all(isinstance(text, str) for text in texts):
        raise RequestError(
            f"{shorten(texts)} is a pair of texts, and the model has no task of pairs",
            expected="a text: a string, or a list of tokens",
            fix="Give the texts one by one; tokens in a list, not a tuple.",
            where=f"text {number}",
        )


def _not_a_text(found: object, number: int) -> RequestError:
    return RequestError(
        f"{shorten(found)} is of the type {type(found).__name__}",
        expected="a text: a string, or a list of strings",
        fix="Give its text, such as item['text'], or use `manyheads.load(...).predict`."
        if isinstance(found, Mapping)
        else "Leave it out or turn it into a string.",
        where=f"text {number}",
    )
