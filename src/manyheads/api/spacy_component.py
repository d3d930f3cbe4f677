"""A spaCy component: entities, classes and the vector of a document from a Manyheads model."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from manyheads.api import load
from manyheads.api.description import describe
from manyheads.api.model import Model
from manyheads.errors import ModelError, RequestError
from manyheads.tasks import (
    ClassResult,
    MultilabelResult,
    Prediction,
    TaggingResult,
    TaskSpec,
    kind_of,
)

try:
    _language: Any = import_module("spacy.language")
    _scorer: Any = import_module("spacy.scorer")
    _util: Any = import_module("spacy.util")
except ImportError as error:
    raise RequestError(
        f"the component needs spaCy, which cannot be imported ({error})",
        fix="Run: pip install spacy",
    ) from error


class ManyheadsComponent:
    """Predicts for documents in batches.

    Entities of the first task that finds entities become `doc.ents`, the spans of every tagging
    task `doc.spans[TASK]`, each widened to spaCy's tokens. Chosen classes become `doc.cats`, by
    label, or with several such tasks by `TASK:LABEL`. The embedding becomes `doc.vector`.

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
                _annotate(doc, prediction, self.model.specs)
                yield doc

    @property
    def labels(self) -> tuple[str, ...]:
        """The entity types and the keys of `doc.cats`, in the order of the tasks; none as long as
        there is no model."""
        try:
            # From its files: spaCy reads this of every pipeline that it loads or saves.
            specs: Sequence[TaskSpec] = describe(self._path).tasks
        except ModelError:
            return ()
        classes = _class_keys(specs)
        found = [one for spec in specs for one in (classes.get(spec.name) or _entity_types(spec))]
        return tuple(dict.fromkeys(found))

    def score(self, examples: Iterable[Any], **_: Any) -> dict[str, Any]:
        """Score documents, for `nlp.evaluate`.

        Entities as spaCy's own components do (`ents_p`, `ents_r`, `ents_f`), those of the first
        task that finds some. Classes as `cats_micro_f`, `cats_macro_f` and the like; a label that a
        document's annotation leaves out beside others of its task is taken for a wrong one.
        """
        given, specs = list(examples), self.model.specs
        scores: dict[str, Any] = {}
        if any(_entity_types(spec) for spec in specs):
            scores |= _scorer.get_ner_prf(given)
        if tasks := _class_keys(specs):
            scores |= _class_scores(given, tasks)
        return scores

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


def _entity_types(spec: TaskSpec) -> tuple[str, ...]:
    """Return the types of entities that a task finds."""
    labels = spec.label_set()
    return labels.record_names if labels.marks_entities else ()


def _class_keys(specs: Sequence[TaskSpec]) -> dict[str, list[str]]:
    """Return, by task with classes of single texts, the keys of `doc.cats` in its labels' order."""
    kinds = {spec.name: kind_of(spec.kind) for spec in specs}
    able = [s for s in specs if kinds[s.name].has_probabilities and not kinds[s.name].pairs]
    return {
        spec.name: [_class_key(spec.name, label, len(able)) for label in spec.labels]
        for spec in able
    }


def _class_key(task: str, label: str, tasks: int) -> str:
    """Return the key of a class in `doc.cats`, given the number of tasks with classes."""
    return label if tasks == 1 else f"{task}:{label}"


def _class_scores(examples: Sequence[Any], tasks: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    def complete(doc: Any, _: str) -> dict[str, float]:
        cats = dict(doc.cats)
        for keys in tasks.values():
            if not cats.keys().isdisjoint(keys):
                cats = {**dict.fromkeys(keys, 0.0), **cats}
        return cats

    scores: dict[str, Any] = _scorer.Scorer.score_cats(
        examples,
        "cats",
        getter=complete,
        labels=[key for keys in tasks.values() for key in keys],
        # A document has the chosen classes alone, so each of them counts, and an undecided one has
        # none. For one class a document, spaCy fails where that is so.
        multi_label=True,
        threshold=sys.float_info.min,
    )
    # The area under the curve needs the scores of all classes.
    left_out = ("cats_macro_auc", "cats_auc_per_type")
    scores = {name: value for name, value in scores.items() if name not in left_out}
    return {**scores, "cats_score": scores["cats_macro_f"], "cats_score_desc": "macro F"}


def _annotate(doc: Any, prediction: Prediction, specs: Sequence[TaskSpec]) -> None:
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
                doc.cats[_class_key(task, one.label, len(classes))] = one.score
    entities = next((s.name for s in specs if s.name in tagged and _entity_types(s)), None)
    for task, found in tagged.items():
        spans = [
            doc.char_span(e.start, e.end, label=e.label, alignment_mode="expand")
            for e in found.entities
        ]
        doc.spans[task] = spans
        if task == entities:
            doc.ents = _util.filter_spans(spans)
    if prediction.embedding is not None:
        doc.vector = prediction.embedding
