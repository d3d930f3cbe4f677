"""A spaCy component: entities, classes and the vector of a document from a Manyheads model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from manyheads.api import load
from manyheads.api.model import Model
from manyheads.errors import RequestError
from manyheads.tasks import ClassResult, MultilabelResult, Prediction, TaggingResult

try:
    _language: Any = import_module("spacy.language")
    _util: Any = import_module("spacy.util")
except ImportError as error:
    raise RequestError(
        f"the component needs spaCy, which cannot be imported ({error})",
        fix="Run: pip install spacy",
    ) from error


class ManyheadsComponent:
    """Predicts for documents in batches.

    Entities of the first tagging task become `doc.ents`, those of every task `doc.spans[TASK]`,
    each widened to spaCy's tokens. Chosen classes become `doc.cats`, by label, or with several
    such tasks by `TASK:LABEL`. The embedding becomes `doc.vector`.

    Args:
        model: the path of a model; loaded with the first document.
    """

    def __init__(self, model: str) -> None:
        self._path = model

    def __repr__(self) -> str:
        return f"ManyheadsComponent({self._path!r})"

    @cached_property
    def model(self) -> Model:
        """The model."""
        return load(self._path)

    def __call__(self, doc: Any) -> Any:
        """Predict for one document."""
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Any], *, batch_size: int = 128) -> Iterator[Any]:
        """Predict for documents in batches."""
        docs = iter(stream)
        while some := list(islice(docs, batch_size)):
            found = self.model.predict([doc.text for doc in some], embed=True)
            for doc, prediction in zip(some, found, strict=True):
                _annotate(doc, prediction)
                yield doc

    def to_disk(self, path: Any, *, exclude: Iterable[str] = ()) -> None:
        """Write the model into a pipeline's folder."""
        self.model.save(path)

    def from_disk(self, path: Any, *, exclude: Iterable[str] = ()) -> ManyheadsComponent:
        """Load the model from a pipeline's folder."""
        self._path = str(Path(path))
        self.__dict__.pop("model", None)
        return self


def make_component(nlp: Any, name: str, model: str) -> ManyheadsComponent:
    """Make the component: `nlp.add_pipe("manyheads", config={"model": "saved_model"})`."""
    return ManyheadsComponent(model)


_language.Language.factory(
    "manyheads", default_config={"model": "saved_model"}, func=make_component
)


def _annotate(doc: Any, prediction: Prediction) -> None:
    classes: dict[str, Sequence[ClassResult]] = {}
    tagged: dict[str, TaggingResult] = {}
    for task, result in prediction.results.items():
        if isinstance(result, ClassResult):
            classes[task] = (result,)
        elif isinstance(result, MultilabelResult):
            classes[task] = result.labels
        elif isinstance(result, TaggingResult):
            tagged[task] = result
    for task, labels in classes.items():
        for one in labels:
            if one.label is not None:
                key = one.label if len(classes) == 1 else f"{task}:{one.label}"
                doc.cats[key] = one.score
    for number, (task, found) in enumerate(tagged.items()):
        spans = [
            doc.char_span(e.start, e.end, label=e.label, alignment_mode="expand")
            for e in found.entities
        ]
        doc.spans[task] = spans
        if number == 0:
            doc.ents = _util.filter_spans(spans)
    if prediction.embedding is not None:
        doc.vector = prediction.embedding
