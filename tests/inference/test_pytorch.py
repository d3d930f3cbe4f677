"""With tiny encoders, padding, batch mates and windows do not change predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tiny import FAMILIES, tiny_encoder_folder

pytest.importorskip("torch")

import torch

from manyheads.config import TaskConfig
from manyheads.inference import Predictor
from manyheads.inference.backends.pytorch import predictor_of_model
from manyheads.modeling import Compute, Encoder, MultiTaskModel, find_encoder, make_head
from manyheads.tasks import ClassResult, LabelSet, TaggingResult, TagSet
from manyheads.text import TextTokenizer

TEXTS = [
    "John lives in Paris.",
    "",
    "Anna likes the weather in New York, and Mary works in London today!",
    ["what", "is", "it", "?"],
    "x" * 300,
    "John visits 北京 😀 e\u0301 👩‍👩‍👧. " * 12,
    "a",
]


def predictor_of(folder: Path, max_length: int = 40) -> Predictor:
    encoder = Encoder.from_source(find_encoder(str(folder)))
    ner = TaskConfig(kind="tagging", decoder="crf", neck="bilstm", neck_size=8)
    intent = TaskConfig(kind="classification")
    torch.manual_seed(0)
    heads = {
        "intent": make_head(intent, LabelSet(("a", "b", "c")), encoder.shape),
        "ner": make_head(ner, TagSet.of_types(["PER", "LOC"]), encoder.shape),
    }
    for parameter in (p for head in heads.values() for p in head.parameters()):
        torch.nn.init.normal_(parameter, std=0.5)
    tokenizer = TextTokenizer.from_json(encoder.tokenizer_json)
    compute = Compute(torch.device("cpu"), "float32", 1, "for a test")
    return predictor_of_model(MultiTaskModel(encoder, heads), compute, tokenizer, max_length)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_batch_mates_change_nothing(model_type: str, tmp_path: Path) -> None:
    predictor = predictor_of(tiny_encoder_folder(tmp_path, model_type=model_type))
    together = predictor.predict(TEXTS, embed=True)
    assert [prediction.windows > 1 for prediction in together].count(True) >= 1
    for text, prediction in zip(TEXTS, together, strict=True):
        (alone,) = predictor.predict([text], embed=True)
        assert alone.windows == prediction.windows
        if alone.empty:
            continue
        assert alone.embedding == pytest.approx(prediction.embedding, abs=1e-5)
        assert np.linalg.norm(prediction.embedding) == pytest.approx(1.0, abs=1e-5)
        mine, theirs = alone.results["intent"], prediction.results["intent"]
        assert isinstance(mine, ClassResult)
        assert isinstance(theirs, ClassResult)
        assert (mine.id, mine.score) == (theirs.id, pytest.approx(theirs.score, abs=1e-4))
        tagged, others = alone.results["ner"], prediction.results["ner"]
        assert isinstance(tagged, TaggingResult)
        assert isinstance(others, TaggingResult)
        assert tagged.tokens == others.tokens


@pytest.mark.parametrize("model_type", FAMILIES)
def test_embeddings_are_those_of_sentence_transformers(model_type: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tiny_encoder_folder(tmp_path, model_type=model_type)
    texts = ["John lives in Paris.", "Wéather 😀 in  New\tYork?", "it rain"]
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts)
    predictions = predictor_of(folder, 64).predict(texts, tasks=[], embed=True)
    for prediction, embedding in zip(predictions, expected, strict=True):
        assert prediction.embedding == pytest.approx(embedding, abs=1e-5)
