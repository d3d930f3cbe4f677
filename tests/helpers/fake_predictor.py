"""A predictor that needs no model, for tests of its callers."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from manyheads.errors import RequestError
from manyheads.tasks import ClassResult, Entity, Prediction, TaggingResult, TokenTag


class FakePredictor:
    """Predicts the length of each text, and its first word as an entity."""

    pairs = False

    def __init__(self) -> None:
        self.backend = SimpleNamespace(name="fake")
        self.loaded: dict[str, Any] = {}
        self.options: dict[str, Any] = {}
        self.prompt: Any = None

    def prompt_of(self, name: Any, prompt: Any) -> Any:
        return prompt if name is None else f"{name}: "

    def with_prompt(self, prompt: Any) -> FakePredictor:
        self.prompt = prompt
        return self

    def answers_scope(self, tasks: Any) -> bool:
        return False

    def predict(self, texts: Any, **options: Any) -> list[Prediction]:
        return list(self.predict_stream(texts, **options))

    def predict_stream(self, texts: Any, **options: Any) -> Iterator[Prediction]:
        self.options = options
        if options["tasks"] not in (None, ["classification"], ["classification", "ner"]):
            raise RequestError(f"no task {options['tasks']}")
        for text in texts:
            if text == "refuse":
                raise RequestError("refused")
            whole = text if isinstance(text, str) else " ".join(text)
            words = whole.split()
            entities = (Entity(words[0], "PER", 0, len(words[0]), 0.5),) if words else ()
            tokens = tuple(TokenTag(word, "O", 0, 0, 0) for word in words)
            label = ClassResult(str(len(whole)), len(whole), 0.25)
            yield Prediction(
                whole,
                {"classification": label, "ner": TaggingResult(entities, tokens)},
                np.array([0.5, -0.25], np.float32) if options["embed"] else None,
                0 if not words or whole == "\u200b" else 1,
            )
