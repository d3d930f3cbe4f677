"""Token dropout hides some sub-tokens of a training text, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from manyheads.config import make_config
from manyheads.inference import Runtime, load_model
from manyheads.modeling import ModelInputs
from manyheads.text import TextTokenizer
from manyheads.training.token_dropout import TokenDropout
from tiny import tiny_tokenizer
from training_setup import run, sentences, write_records

ALMOST_ALL = 1 - 1e-9
"""A share that hides every token of a small run."""


def dropout(share: float, tokenizer: TextTokenizer) -> TokenDropout | None:
    return TokenDropout.of_run(make_config({"token_dropout": share}), tokenizer, pad_id=77)


def test_a_share_of_the_words_is_hidden_and_no_special_token() -> None:
    hide = dropout(0.3, TextTokenizer(tiny_tokenizer()))
    assert hide is not None
    lengths = torch.randint(3, 60, (200,), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(60) < lengths[:, None]).long()
    ids = torch.full((200, 60), 9) * mask
    inputs = ModelInputs(ids, mask, torch.zeros(200, 1).long(), torch.ones(200, 1).bool())
    torch.manual_seed(1)
    hidden = hide(inputs).input_ids == hide.hiding_id
    words = mask.bool().clone()
    words[:, 0] = False
    words[torch.arange(200), lengths - 1] = False
    assert not hidden[~words].any()
    assert float(hidden[words].float().mean()) == pytest.approx(0.3, abs=0.02)
    assert not (inputs.input_ids == hide.hiding_id).any(), "the batch itself has changed"


@pytest.mark.parametrize(
    ("special", "expected"), [(("[UNK]", "[MASK]"), 3), (("<mask>",), 2), (("<unk>",), 2), ((), 77)]
)
def test_a_mask_hides_a_token_or_what_comes_next_to_it(
    special: tuple[str, ...], expected: int
) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(special))
    hide = dropout(0.1, TextTokenizer(tokenizer))
    assert hide is not None
    assert hide.hiding_id == expected
    assert dropout(0.0, TextTokenizer(tokenizer)) is None


@pytest.mark.parametrize("freeze", ["none", "encoder"])
def test_a_step_does_not_see_what_is_hidden(tmp_path: Path, freeze: str) -> None:
    records = sentences(14, 1)
    # Every word but `eat` is one token.
    other = [{**r, "tokens": [w if w == "eat" else "rome" for w in r["tokens"]]} for r in records]

    def losses(name: str, train: list[Any], share: float) -> list[tuple[str, float]]:
        folder = tmp_path / name
        write_records(folder / "train.jsonl", train)
        _, spy = run(folder, token_dropout=share, freeze=freeze)
        return spy.losses

    assert losses("one", records, ALMOST_ALL) == losses("other", other, ALMOST_ALL)
    assert losses("seen", records, 0) != losses("seen other", other, 0)
    # Evaluation and prediction hide nothing.
    model = load_model(tmp_path / "one" / "saved", Runtime("torch")).predictor
    first, second = model.predict(["john lives in rome", "rome rome rome rome"], embed=True)
    assert abs(first.embedding - second.embedding).max() > 1e-3
