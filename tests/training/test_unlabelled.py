"""The unlabelled sentences of a loss term: their order, and their division among processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from files import write
from manyheads.modeling import Encoder, ModelInputs, MultiTaskModel, find_encoder
from manyheads.text import TextTokenizer
from manyheads.training.data.training_data import read_texts
from manyheads.training.unlabelled import UnlabelledSentences
from training_setup import encoder_folder

TEXTS = ["john eats", "the weather was bad", "is it london ?", "mary is in rome", "paris", "rome"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.from_source(find_encoder(str(encoder_folder()), "auto"))


def unlabelled(folder: Path, encoder: Encoder, batch_size: int = 4) -> UnlabelledSentences:
    path = folder / "texts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    texts = read_texts([str(path)], TextTokenizer.from_json(encoder.tokenizer_json), 32)
    return UnlabelledSentences("teacher.texts", texts, batch_size, seed=1)


def test_unlabelled_sentences_are_drawn_by_the_step_alone_and_each_once_a_round(
    tmp_path: Path, encoder: Encoder
) -> None:
    one, other = (unlabelled(tmp_path, encoder) for _ in range(2))
    drawn = [one.drawn(step).tolist() for step in range(8)]
    for step in (5, 0, 7, 2):
        assert other.drawn(step).tolist() == drawn[step]
    for first, second in zip(drawn[::2], drawn[1::2], strict=True):
        assert sorted(first + second) == list(range(len(TEXTS)))
    assert len({tuple(rows) for rows in drawn}) > 2


def test_unlabelled_sentences_are_read_whatever_their_annotation(
    tmp_path: Path, encoder: Encoder
) -> None:
    answers = ["accept", "reject", "ignore"]
    path = write(tmp_path / "x.jsonl", *({"text": f"in {a}", "answer": a} for a in answers))
    tokenizer = TextTokenizer.from_json(encoder.tokenizer_json)
    assert len(read_texts([path], tokenizer, 32)) == 3


def test_the_parts_of_all_processes_add_up_to_the_mean_loss(
    tmp_path: Path, encoder: Encoder
) -> None:
    sentences, model = unlabelled(tmp_path, encoder, len(TEXTS)), MultiTaskModel(encoder, {})

    def mean_row(inputs: ModelInputs, rows: object) -> Tensor:
        assert len(inputs.input_ids) == len(torch.as_tensor(rows))
        assert not model.training
        return torch.as_tensor(rows).float().mean()

    def part(cut: slice) -> Tensor | None:
        return sentences.loss(model.train(), 0, lambda rows: rows[cut], mean_row)

    parts = [part(slice(0, 2)), part(slice(2, None)), part(slice(0, 0))]
    assert parts[2] is None
    assert float(sum(part for part in parts if part is not None)) == pytest.approx(2.5)
