"""The embedding of a trained encoder is kept close to the original."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equal_runs import assert_resumes
from manyheads.api import load
from manyheads.config import load_config
from manyheads.errors import ConfigError, DataError, RequestError
from manyheads.modeling import Encoder, MultiTaskModel, find_encoder
from manyheads.text import TextTokenizer
from manyheads.training import train
from manyheads.training.data import load_training_data
from manyheads.training.distillation import Distillation
from training_setup import config, encoder_folder, log_lines, run, sentences

TEXTS = ["john eats", "the weather was bad", "is it london ?", "mary is in rome", "paris", "rome"]


def texts_file(folder: Path) -> str:
    path = folder / "texts.txt"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(TEXTS) + "\n\n", encoding="utf-8")
    return str(path)


def vectors(model: Path, texts: list[str]) -> Any:
    predictions = load(model).predict(texts, embed=True)
    return np.stack([np.asarray(p.embedding) for p in predictions])


def originals(texts: list[str]) -> Any:
    encoder = Encoder.from_source(find_encoder(str(encoder_folder()), "auto")).eval()
    tokenizer = TextTokenizer.from_json(encoder.tokenizer_json)
    rows = []
    for text in texts:
        ids = torch.from_numpy(np.asarray(tokenizer.encode_batch([text])[0].ids))[None].long()
        with torch.inference_mode():
            rows.append(encoder.embed(encoder(ids, torch.ones_like(ids)).sentence)[0].numpy())
    return np.stack(rows)


def cosine(one: Any, other: Any) -> float:
    return float((one * other).sum(axis=1).mean())


def distillation(folder: Path, **settings: Any) -> Distillation:
    encoder = Encoder.from_source(find_encoder(str(encoder_folder()), "auto"))
    tokenizer = TextTokenizer.from_json(encoder.tokenizer_json)
    made = config(folder, keep_embeddings={"weight": 1.0, **settings})
    data = load_training_data(made, tokenizer, 32, lambda text: None)
    term = Distillation.of_run(made, data, encoder)
    assert term is not None
    return term


def test_a_kept_embedding_stays_closer_to_the_original(tmp_path: Path) -> None:
    texts = [" ".join(record["tokens"]) for record in sentences(14, 1)]
    before = originals(texts)
    free, _ = run(tmp_path / "free", num_epochs=2)
    held, _ = run(tmp_path / "held", num_epochs=2, keep_embeddings=100)
    assert cosine(before, vectors(free.best, texts)) < 0.99
    assert cosine(before, vectors(held.best, texts)) > 0.995


def test_embeddings_of_unlabelled_sentences_are_kept(tmp_path: Path) -> None:
    settings = {"num_epochs": 3, "learning_rate": 3e-3}
    before = originals(TEXTS)
    free, _ = run(tmp_path / "free", **settings)
    keep = {"weight": 100, "texts": texts_file(tmp_path), "batch_size": 6}
    held, _ = run(tmp_path / "held", keep_embeddings=keep, **settings)
    assert cosine(before, vectors(held.best, TEXTS)) > cosine(before, vectors(free.best, TEXTS))
    assert cosine(before, vectors(held.best, TEXTS)) > 0.98


def test_the_embedding_loss_is_logged_with_those_of_the_tasks(tmp_path: Path) -> None:
    result, spy = run(tmp_path, keep_embeddings={"weight": 2, "texts": texts_file(tmp_path)})
    assert {task for task, _ in spy.losses} == {"classification", "ner", "embedding"}
    steps = [line for line in log_lines(result.save_dir) if line["event"] == "step"]
    assert all(0 <= line["loss"]["embedding"] <= 2 for line in steps)


def test_the_loss_on_unlabelled_sentences_starts_at_zero(tmp_path: Path) -> None:
    term = distillation(tmp_path, texts=texts_file(tmp_path))
    encoder = Encoder.from_source(find_encoder(str(encoder_folder()), "auto"))
    loss = term.unlabelled_loss(MultiTaskModel(encoder, {}), 0)
    assert loss is not None
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)


def test_a_stopped_run_resumes_bit_for_bit_without_the_original_encoder(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(encoder_folder(), folder)

    def settings(name: str) -> Any:
        return config(
            tmp_path / name, model_name=str(folder), num_epochs=2, checkpoint_every=2,
            keep_embeddings={"weight": 5, "texts": texts_file(tmp_path), "batch_size": 3},
        )  # fmt: skip

    assert_resumes(settings("whole"), settings("stopped"), 5, between=lambda: shutil.rmtree(folder))


def test_a_run_is_not_resumed_with_other_unlabelled_sentences(tmp_path: Path) -> None:
    keep = {"weight": 1, "texts": texts_file(tmp_path)}
    run(tmp_path, keep_embeddings=keep)
    Path(keep["texts"]).write_text("another sentence\n", encoding="utf-8")
    with pytest.raises(RequestError, match="the data's content has changed"):
        train(config(tmp_path, keep_embeddings=keep, num_epochs=1), resume=True)
    with pytest.raises(RequestError, match=r"keep_embeddings.weight is 2\.0 and was 1\.0"):
        train(config(tmp_path, keep_embeddings={**keep, "weight": 2}), resume=True)


def test_a_number_is_the_weight_and_keys_can_be_set_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("keep_embeddings: 3\n", encoding="utf-8")
    plain = load_config(path).keep_embeddings
    assert plain is not None
    assert plain.weight == 3
    more = load_config(path, {"keep_embeddings.texts": "a.csv"}).keep_embeddings
    assert more is not None
    assert (more.weight, more.texts) == (3, "a.csv")
    path.write_text("keep_embeddings:\n  texts: lines.txt\n", encoding="utf-8")
    nested = load_config(path).keep_embeddings
    assert nested is not None
    assert (nested.weight, nested.texts) == (1, str(tmp_path / "lines.txt"))
    by_flag = load_config(None, {"keep_embeddings": "2.5"}).keep_embeddings
    assert by_flag is not None
    assert by_flag.weight == 2.5


def test_settings_that_cannot_keep_the_embedding_are_refused_by_name(tmp_path: Path) -> None:
    for values, message in (
        ({"keep_embeddings": {"wieght": 1}}, r"unknown key `keep_embeddings\.wieght`.*weight"),
        ({"keep_embeddings": {"weight": 0}}, r"`keep_embeddings\.weight` is 0.*above 0"),
        ({"keep_embeddings": "much"}, r"`keep_embeddings` is 'much'.*a number; or a mapping with"),
        ({"keep_embeddings.texts.file": "a"}, r"no key `keep_embeddings\.texts\.file`"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(None, values)
    with pytest.raises(DataError, match=r"none\.txt: cannot be read"):
        run(tmp_path, keep_embeddings={"texts": str(tmp_path / "none.txt")})
