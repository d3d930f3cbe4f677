"""Common systems for the same three outputs, for `benchmarks/inference.py`.

The three separate models have the encoder's trained weights, and the tagger also the trained
classifier, so that it finds as many entities. The sentence classifier has one additional, untrained
layer, which costs no time; the accuracy of these models is therefore not compared.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.nn import Linear

from manyheads.data.records import Record
from manyheads.inference.backends import pytorch
from manyheads.modeling import ModelInputs
from manyheads.tasks import Scheme, Span, TaskSpec, decode, tags_of
from manyheads.tasks.metrics import TaggedText, classification_metrics, tagging_metrics
from manyheads.text import WORD_FEATURE_COLUMNS

Run = Callable[[Sequence[str]], object]

BATCH_SIZES = (1, 8, 32, 64)


class SeparateModels:
    """`text-classification`, `token-classification` and `encode`, a model for each.

    Args:
        folder: our model, whose encoder and tokenizer they share.
        trained: the same model in memory.
        work: an empty folder for the models' files.
    """

    def __init__(self, folder: Path, trained: pytorch.TrainedModel, work: Path) -> None:
        from sentence_transformers import SentenceTransformer

        hub: Any = import_module("transformers")
        hub.utils.logging.set_verbosity_error()
        hub.utils.logging.disable_progress_bar()
        heads = {spec.kind: trained.model.head(spec.name) for spec in _specs(trained)}
        tokenizer = hub.AutoTokenizer.from_pretrained(folder)
        pipes: dict[str, Any] = {}
        for kind, task, auto in (
            ("classification", "text-classification", hub.AutoModelForSequenceClassification),
            ("tagging", "token-classification", hub.AutoModelForTokenClassification),
        ):
            names = dict(enumerate(heads[kind].labels.names))
            model = auto.from_pretrained(folder, num_labels=len(names), id2label=names)
            ours = getattr(heads[kind], "classifier", None)
            theirs = getattr(model, "classifier", None)
            if isinstance(ours, Linear) and isinstance(theirs, Linear) and (
                ours.weight.shape == theirs.weight.shape
            ):  # fmt: skip
                theirs.load_state_dict(ours.state_dict())
            model.save_pretrained(work / task)
            tokenizer.save_pretrained(work / task)
            options = {"aggregation_strategy": "simple"} if kind == "tagging" else {}
            pipes[task] = hub.pipeline(task, model=str(work / task), device="cpu", **options)
        encoder = SentenceTransformer(str(folder), device="cpu")
        self.systems: dict[str, Callable[[Sequence[str], int], object]] = {
            "text-classification": lambda texts, size: pipes["text-classification"](
                list(texts), batch_size=size
            ),
            "token-classification": lambda texts, size: pipes["token-classification"](
                list(texts), batch_size=size
            ),
            "encode": lambda texts, size: encoder.encode(
                list(texts), batch_size=size, show_progress_bar=False
            ),
        }

    def one(self, text: str) -> None:
        """Run all three on one sentence."""
        for run in self.systems.values():
            run([text], 1)


def padded_loop(folder: Path, trained: pytorch.TrainedModel, batch_size: int, length: int) -> Run:
    """Return the plain loop: one model, float32, every sentence padded to one length."""
    hub: Any = import_module("transformers")
    tokenizer = hub.AutoTokenizer.from_pretrained(folder)
    model = trained.model
    specs = _specs(trained)
    transitions = {name: model.head(name).learned() for name in model.heads}

    def run(texts: Sequence[str]) -> object:
        answers = []
        for start in range(0, len(texts), batch_size):
            inputs = tokenizer(
                list(texts[start : start + batch_size]),
                padding="max_length", truncation=True, max_length=length, return_tensors="pt",
            )  # fmt: skip
            # As in such loops, every token is tagged like a word, of whose letters nothing is
            # known: the features are those of a text that is all in one case.
            places = torch.arange(length).expand_as(inputs["input_ids"]).contiguous()
            features = torch.zeros(*places.shape, WORD_FEATURE_COLUMNS, dtype=torch.int64)
            mask = inputs["attention_mask"]
            with torch.inference_mode():
                outputs = model(
                    ModelInputs(inputs["input_ids"], mask, places, mask.bool(), features)
                )
            counts = mask.sum(dim=1).numpy()
            answers += [
                decode(
                    spec, outputs[spec.name].numpy(),
                    counts if spec.kind == "tagging" else None, transitions[spec.name],
                )
                for spec in specs
            ]  # fmt: skip
            answers.append(outputs["embedding"].numpy())
        return answers

    return run


class SpacyPipeline:
    """A shared tok2vec with textcat, ner or both, trained on the same records.

    Args:
        records: the training records.
        intent: the classification task's name, or None without one.
        slots: the tagging task's name, or None without one.
        epochs: passes over the records.
        seed: of the weights and of the order.
        batch_size: sentences of a batch.

    Attributes:
        seconds: what the loop of the epochs took.
        steps: how many batches it had.
    """

    def __init__(
        self,
        records: Sequence[Record],
        intent: str | None,
        slots: str | None,
        *,
        epochs: int,
        seed: int = 1,
        batch_size: int = 64,
    ) -> None:
        spacy: Any = import_module("spacy")
        training: Any = import_module("spacy.training")

        spacy.util.fix_random_seed(seed)
        self._intent, self._slots = intent, slots
        self.nlp = spacy.blank("en")
        listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 96, "upstream": "*"}
        self.nlp.add_pipe("tok2vec")
        textcat = {
            "@architectures": "spacy.TextCatReduce.v1", "exclusive_classes": True,
            "use_reduce_first": False, "use_reduce_last": False, "use_reduce_max": True,
            "use_reduce_mean": True, "tok2vec": listener,
        }  # fmt: skip
        ner = {
            "@architectures": "spacy.TransitionBasedParser.v2", "state_type": "ner",
            "extra_state_tokens": False, "hidden_width": 64, "maxout_pieces": 2, "use_upper": True,
            "tok2vec": listener,
        }  # fmt: skip
        if intent is not None:
            self.nlp.add_pipe("textcat", config={"model": textcat})
        if slots is not None:
            self.nlp.add_pipe("ner", config={"model": ner})
        classes = sorted({str(record.labels[intent]) for record in records if intent})

        def example(record: Record) -> Any:
            doc = _doc(self.nlp, record)
            gold = doc.copy()
            if intent is not None:
                gold.cats = {name: float(name == record.labels[intent]) for name in classes}
            if slots is not None:
                spans = record.spans(slots)
                found = [gold.char_span(s.start, s.end, label=s.label) for s in spans]
                gold.ents = [span for span in found if span is not None]
            return training.Example(doc, gold)

        examples = [example(record) for record in records]
        optimizer = self.nlp.initialize(lambda: examples)
        order = random.Random(seed)
        self.steps = 0
        began = time.perf_counter()
        for _ in range(epochs):
            order.shuffle(examples)
            for batch in spacy.util.minibatch(examples, size=batch_size):
                self.nlp.update(batch, sgd=optimizer, drop=0.1)
                self.steps += 1
        self.seconds = time.perf_counter() - began

    @classmethod
    def kept(
        cls,
        place: Path,
        records: Sequence[Record],
        intent: str | None,
        slots: str | None,
        *,
        epochs: int,
    ) -> SpacyPipeline:
        """Return the pipeline of an earlier run, or train it and keep it in a folder."""
        if place.exists():
            pipeline = cls.__new__(cls)
            pipeline._intent, pipeline._slots = intent, slots
            pipeline.nlp = import_module("spacy").load(place)
            return pipeline
        pipeline = cls(records, intent, slots, epochs=epochs)
        unfinished = place.with_name(f"{place.name}.partial")
        pipeline.nlp.to_disk(unfinished)
        unfinished.rename(place)
        return pipeline

    def __call__(self, texts: Sequence[str]) -> object:
        """Predict a batch of texts: classes, entities and, as the embedding, the mean vector."""
        return [
            (doc.cats, [(e.text, e.label_) for e in doc.ents], doc.tensor.mean(axis=0))
            for doc in self.nlp.pipe(texts, batch_size=256)
        ]

    def scores(self, records: Sequence[Record]) -> dict[str, float]:
        """Score the test records with our metrics."""
        docs = list(self._docs(records))
        found = {}
        if self._intent is not None:
            found["accuracy"] = self._accuracy(self._intent, records, docs)
        if self._slots is not None:
            found["f1"] = self._f1(self._slots, records, docs)
        return found

    @staticmethod
    def _accuracy(intent: str, records: Sequence[Record], docs: Sequence[Any]) -> float:
        names = sorted({str(record.labels[intent]) for record in records})
        gold = [names.index(str(record.labels[intent])) for record in records]
        best = [max(doc.cats, key=doc.cats.__getitem__) for doc in docs]
        classes = [names.index(one) if one in names else -1 for one in best]
        return classification_metrics(gold, classes, names)["accuracy"]

    @staticmethod
    def _f1(slots: str, records: Sequence[Record], docs: Sequence[Any]) -> float:
        gold_tagged: list[TaggedText] = []
        tagged: list[TaggedText] = []
        for record, doc in zip(records, docs, strict=True):
            words = [(token.idx, token.idx + len(token)) for token in doc]
            spans = record.spans(slots)
            found = [Span(e.start_char, e.end_char, e.label_) for e in doc.ents]
            for side, entities in ((gold_tagged, spans), (tagged, found)):
                tags = tuple(tags_of(entities, words, Scheme.BIO))
                side.append(TaggedText(tags, frozenset(entities)))
        return tagging_metrics(gold_tagged, tagged)["f1"]

    def _docs(self, records: Sequence[Record]) -> Iterator[Any]:
        yield from self.nlp.pipe([_doc(self.nlp, record) for record in records], batch_size=256)


def _doc(nlp: Any, record: Record) -> Any:
    """Return a document with the record's words, so that every slot starts at a word."""
    if record.tokens is None:
        return nlp.make_doc(record.text)
    tokens: Any = import_module("spacy.tokens")
    return tokens.Doc(nlp.vocab, words=[record.text[start:end] for start, end in record.tokens])


def _specs(trained: pytorch.TrainedModel) -> list[TaskSpec]:
    return [trained.model.head(name).spec(name) for name in trained.model.heads]
