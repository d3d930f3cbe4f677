"""Other systems that learn from few sentences, for `benchmarks/few.py`.

Axes: B sentences, T tokens, W words, H hidden, L labels.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rival_model import IGNORE, JointModel

Record = dict[str, Any]

EPOCHS, EVERY, BATCH = 40, 5, 16
"""The Trainer's longest run, and how often it is scored on the validation sentences."""


class Reader:
    """Records to a batch of the model's inputs."""

    def __init__(self, folder: Path, train: Sequence[Record]) -> None:
        hub: Any = import_module("transformers")
        self.tokenizer = hub.AutoTokenizer.from_pretrained(folder)
        self.labels = sorted({r["label"] for r in train if "label" in r})
        self.tags = sorted({tag for r in train for tag in r.get("ner", ())})

    def batch(self, records: Sequence[Record], *, targets: bool = True) -> dict[str, Tensor]:
        """Tokenise and pad records, with their labels' indices."""
        words = [r.get("tokens") or r["text"].split() for r in records]
        made = self.tokenizer(
            words, is_split_into_words=True, truncation=True, max_length=128, padding=True,
            return_tensors="pt",
        )  # fmt: skip
        batch = {key: made[key] for key in ("input_ids", "attention_mask")}
        if targets and self.labels:
            batch["label"] = torch.tensor([self.labels.index(r["label"]) for r in records])
        if targets and self.tags:
            rows = []
            for i, record in enumerate(records):
                places = _first_tokens(made.word_ids(i))
                row = [IGNORE] * len(made["input_ids"][i])
                for word, place in places.items():
                    row[place] = self.tags.index(record["ner"][word])
                rows.append(row)
            batch["tags"] = torch.tensor(rows)
        return batch

    def answers(self, model: JointModel, records: Sequence[Record]) -> list[Record]:
        """Predict labels and tags; a word that was cut off has none."""
        model.eval()
        found: list[Record] = []
        for start in range(0, len(records), 64):
            part = records[start : start + 64]
            batch = self.batch(part, targets=False)
            words = [r.get("tokens") or r["text"].split() for r in part]
            ids = self.tokenizer(words, is_split_into_words=True, truncation=True, max_length=128)
            with torch.inference_mode():
                outputs = model.logits(**batch)
            for i in range(len(part)):
                answer: Record = {}
                if self.labels:
                    answer["label"] = self.labels[int(outputs["label"][i].argmax())]
                if self.tags:
                    tags = ["O"] * len(words[i])
                    for word, place in _first_tokens(ids.word_ids(i)).items():
                        tags[word] = self.tags[int(outputs["tags"][i, place].argmax())]
                    answer["ner"] = tags
                found.append(answer)
        return found


def _first_tokens(words: Sequence[int | None]) -> dict[int, int]:
    """Return the position of each word's first token."""
    places: dict[int, int] = {}
    for place, word in enumerate(words):
        if word is not None:
            places.setdefault(word, place)
    return places


def train_plainly(
    folder: Path,
    train: Sequence[Record],
    valid: Sequence[Record],
    test: Sequence[Record],
    seed: int,
) -> list[Record]:
    """Train with transformers' Trainer at its default rate, and answer at the best epoch scored."""
    from few import scores

    hub: Any = import_module("transformers")
    torch.manual_seed(seed)
    reader = Reader(folder, train)
    model = JointModel(folder, len(reader.labels), len(reader.tags))
    known = [r for r in valid if set(r.get("ner", ())) <= set(reader.tags)]
    best: dict[str, Any] = {"score": -1.0}

    class Watch(hub.TrainerCallback):  # type: ignore[misc]
        """Scores the validation sentences every few epochs."""

        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if round(state.epoch) % EVERY:
                return
            found = scores(known, reader.answers(model, known))
            score = sum(found.values()) / len(found)
            if score > best["score"]:
                weights = {name: value.clone() for name, value in model.state_dict().items()}
                best.update(score=score, weights=weights)
            model.train()

    with tempfile.TemporaryDirectory() as out:
        arguments = hub.TrainingArguments(
            output_dir=out, per_device_train_batch_size=BATCH, num_train_epochs=EPOCHS, seed=seed,
            use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True,
            remove_unused_columns=False, dataloader_pin_memory=False, logging_strategy="no",
        )  # fmt: skip
        hub.Trainer(
            model=model, args=arguments, train_dataset=list(train), data_collator=reader.batch,
            callbacks=[Watch()],
        ).train()  # fmt: skip
    model.load_state_dict(best["weights"])
    return reader.answers(model, test)


def train_setfit(
    folder: Path, train: Sequence[Record], test: Sequence[Record], seed: int
) -> list[Record]:
    """Train SetFit with 20 pairs a sentence, as in its paper (Tunstall et al., 2022)."""
    texts, labels = [r["text"] for r in train], [r["label"] for r in train]
    model = setfit_model(folder, texts, labels, pairs=20, seed=seed)
    return [{"label": str(label)} for label in model.predict([r["text"] for r in test])]


def setfit_model(
    folder: Path, texts: Sequence[str], labels: Sequence[str], *, pairs: int, seed: int
) -> Any:
    """Train SetFit: contrastively on pairs of sentences, then a logistic regression.

    Args:
        folder: the encoder.
        texts, labels: the training sentences.
        pairs: of the same class and of two classes, as many for each sentence.
        seed: draws the pairs.

    Returns:
        Its model, whose `predict` takes texts.
    """
    setfit: Any = import_module("setfit")
    datasets: Any = import_module("datasets")
    model = setfit.SetFitModel.from_pretrained(str(folder), labels=sorted(set(labels)))
    columns = {"text": list(texts), "label": list(labels)}
    with tempfile.TemporaryDirectory() as out:
        arguments = setfit.TrainingArguments(
            output_dir=out, batch_size=16, num_epochs=1, num_iterations=pairs, seed=seed,
            report_to="none", save_strategy="no",
        )  # fmt: skip
        data = datasets.Dataset.from_dict(columns)
        setfit.Trainer(model=model, args=arguments, train_dataset=data).train()
    return model


def static_model(folder: Path, texts: Sequence[str], labels: Sequence[str], *, seed: int) -> Any:
    """Train model2vec's classifier on static vectors that it distils from an encoder.

    Returns:
        Its model, whose `predict` takes texts.
    """
    distilling: Any = import_module("model2vec.distill")
    training: Any = import_module("model2vec.train")
    static = distilling.distill(str(folder), device="cpu")
    model = training.StaticModelForClassification.from_static_model(model=static)
    return model.fit(list(texts), list(labels), device="cpu", random_seed=seed)


def train_spacy(
    train: Sequence[Record], valid: Sequence[Record], test: Sequence[Record], seed: int
) -> list[Record]:
    """Train spaCy's default pipeline for entities for thirty epochs, the best one kept."""
    from few import scores

    spacy: Any = import_module("spacy")
    training: Any = import_module("spacy.training")
    spacy.util.fix_random_seed(seed)
    nlp = spacy.blank("en")
    nlp.add_pipe("ner")

    def doc(words: Sequence[str]) -> Any:
        return spacy.tokens.Doc(nlp.vocab, words=list(words))

    examples = [
        training.Example.from_dict(doc(r["tokens"]), {"entities": training.iob_to_biluo(r["ner"])})
        for r in train
    ]
    optimizer = nlp.initialize(lambda: examples)
    draw, best, kept = random.Random(seed), -1.0, nlp.to_bytes()

    def answers(records: Sequence[Record]) -> list[Record]:
        docs = nlp.pipe(doc(r["tokens"]) for r in records)
        return [
            {"ner": [f"{t.ent_iob_}-{t.ent_type_}" if t.ent_type_ else "O" for t in one]}
            for one in docs
        ]

    for epoch in range(30):
        draw.shuffle(examples)
        for batch in spacy.util.minibatch(examples, size=BATCH):
            nlp.update(batch, sgd=optimizer, drop=0.1)
        if epoch % 3 == 2:
            score = scores(valid, answers(valid))["f1"]
            if score > best:
                best, kept = score, nlp.to_bytes()
    nlp.from_bytes(kept)
    return answers(test)
