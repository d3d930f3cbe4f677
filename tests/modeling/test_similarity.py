"""Scored pairs train and score the sentence embedding."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manyheads.api import compare, evaluate, load
from manyheads.config import TaskConfig, load_config
from manyheads.data.check import check_data
from manyheads.data.records import discover_labels, read_records
from manyheads.errors import ConfigError, DataError, ModelError, RequestError
from manyheads.modeling import Encoder, EncoderShape, find_encoder, make_head
from manyheads.tasks import LabelSet, Pair, TaskSpec
from manyheads.text import TextTokenizer
from manyheads.training.data import load_training_data
from training_setup import NAMES, PLACES, config, encoder_folder, run, sentences, write_records

TASK = TaskConfig(kind="similarity", score_range=(0, 5))


def pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs whose sentences share a name, a place, both or neither."""
    draw = random.Random(seed)
    records = []
    for _ in range(count):
        names, places = draw.sample(list(NAMES), 2), draw.sample(list(PLACES), 2)
        same_name, same_place = draw.random() < 0.5, draw.random() < 0.5
        records.append(
            {
                "text": f"{names[0]} lives in {places[0]}",
                "text2": f"in {places[not same_place]} lives {names[not same_name]}",
                "score": 1 + 1.5 * same_name + 2.5 * same_place,
            }
        )
    return records


def pair_settings(folder: Path, **changes: Any) -> dict[str, Any]:
    for name, count, seed in (("pairs", 24, 1), ("held_out", 16, 2)):
        if not (folder / f"{name}.jsonl").exists():
            write_records(folder / f"{name}.jsonl", pairs(count, seed))
    return {
        "tasks": {
            "intent": {"kind": "classification"},
            "likeness": {
                "kind": "similarity", "score_range": [0, 5],
                "train_file": str(folder / "pairs.jsonl"),
                "valid_file": str(folder / "held_out.jsonl"),
            },
        },
        **changes,
    }  # fmt: skip


def read(path: Path, task: TaskConfig = TASK) -> list[Any]:
    return list(read_records(path, {"likeness": task}, {"likeness": LabelSet(())}))


def test_pairs_train_the_embedding_together_with_a_head(tmp_path: Path) -> None:
    settings = pair_settings(tmp_path, num_epochs=5, best_metric="likeness")
    result, spy = run(tmp_path, **settings)
    scores = [entry["metrics"]["tasks"]["likeness"]["spearman"] for entry in result.history]
    assert max(scores) > scores[0] + 0.1
    assert scores[result.best_epoch - 1] == max(scores) == result.best_score
    assert {task for task, _ in spy.losses} == {"intent", "likeness"}
    report = evaluate(result.best, tmp_path / "held_out.jsonl", tasks=["likeness"])
    likeness: Any = report.evaluation["tasks"]["likeness"]
    assert likeness["spearman"] == pytest.approx(result.best_score, abs=1e-6)
    assert set(likeness) == {"spearman", "pearson"}
    card = (result.best / "README.md").read_text(encoding="utf-8")
    assert "sentence-similarity" in card
    assert "| likeness | similarity | scored pairs |" in card


def test_a_model_of_pairs_predicts_embeddings_only(tmp_path: Path) -> None:
    settings = pair_settings(tmp_path)
    settings["tasks"] = {"likeness": settings["tasks"]["likeness"]}
    result, _ = run(tmp_path, **settings)
    model = load(result.best)
    [prediction] = model.predict(["john lives in paris"], embed=True)
    assert prediction.results == {}
    assert prediction.embedding is not None
    with pytest.raises(RequestError, match=r"'likeness' scores pairs and says nothing.*`embed=T"):
        model.predict(["john"], tasks=["likeness"])


def test_predicted_similarities_are_cosines_of_the_embeddings(tmp_path: Path) -> None:
    result, _ = run(tmp_path, **pair_settings(tmp_path))
    report = evaluate(result.best, tmp_path / "held_out.jsonl", tasks=["likeness"])
    model = load(result.best)
    for pair, predicted in zip(
        pairs(16, 2), report.outcomes.tasks["likeness"].predicted, strict=True
    ):
        one, other = (
            np.asarray(p.embedding)
            for p in model.predict([pair["text"], pair["text2"]], embed=True)
        )
        assert predicted == pytest.approx(float(one @ other), abs=1e-5)
    assert report.outcomes.correct["likeness"] == [None] * 16


def test_pairs_and_other_labels_of_the_same_records_train_together(tmp_path: Path) -> None:
    records = [
        {**pair, "label": "a" if i % 2 else "b"} if i % 3 else {"text": "john eats", "label": "a"}
        for i, pair in enumerate(pairs(15, 3))
    ]
    path = write_records(tmp_path / "both.jsonl", records)
    settings = pair_settings(tmp_path, schedule="joint", train_file=str(path), valid_file=str(path))
    for key in ("train_file", "valid_file"):
        del settings["tasks"]["likeness"][key]
    made = config(tmp_path, **settings)
    encoder = Encoder.from_source(find_encoder(str(encoder_folder()), "auto"))
    tokenizer = TextTokenizer.from_json(encoder.tokenizer_json)
    data = load_training_data(made, tokenizer, 32, lambda text: None)
    (dataset,) = data.datasets
    assert data.sources[0].rows.tolist() == list(range(15))
    rows = dataset.with_partners(np.array([4, 0, 1]))
    assert rows.tolist()[:3] == [4, 0, 1]
    assert len(rows) == 5
    texts = [tokenizer.encode_batch([records[i]["text2"]])[0].ids for i in (4, 1)]
    assert [dataset.tokens.row(int(row)).tolist() for row in rows[3:]] == [
        list(ids) for ids in texts
    ]
    scores = dataset.targets["likeness"].collate(rows, 1)
    gold = [float(records[i]["score"]) / 5 for i in (4, 1)]
    assert scores[:, 0].tolist() == pytest.approx([gold[0], -100, gold[1], -100, -100])
    assert scores[:, 1].tolist() == [3, -100, 4, -100, -100]
    assert dataset.targets["intent"].collate(rows, 1).tolist()[3:] == [-100, -100]
    result, _ = run(tmp_path, **settings)
    assert result.history[0]["metrics"]["records"] == 15


def test_pairs_and_unlabelled_texts_are_read_after_the_encoders_prompt(tmp_path: Path) -> None:
    """Like texts for the embedding; heads read texts without it."""
    texts = tmp_path / "texts.txt"
    texts.write_text("john eats\n", encoding="utf-8")
    settings = pair_settings(tmp_path)
    made = config(tmp_path, **settings, keep_embeddings={"texts": str(texts)})
    encoder = Encoder.from_source(find_encoder(str(encoder_folder()), "auto"))
    tokenizer = TextTokenizer.from_json(encoder.tokenizer_json)
    heard: list[str] = []
    data = load_training_data(made, tokenizer, 32, heard.append, prompt="mary lives: ")
    start = list(tokenizer.encode_batch(["mary lives:"])[0].ids)[:-1]
    assert data.texts is not None
    for dataset in (*data.datasets, data.texts):
        behind = dataset.tokens.row(0).tolist()[: len(start)] == start
        assert behind == (set(dataset.targets) <= {"likeness"})
    assert not any("prompt" in message for message in heard)
    # Without such texts the embedding is held without the prompt, but not that of the pairs.
    held: list[str] = []
    made = config(tmp_path, **settings, keep_embeddings=1)
    load_training_data(made, tokenizer, 32, held.append, prompt="mary lives: ")
    (warning,) = (message for message in held if "prompt" in message)
    assert warning.startswith(f"{made.train_file}: `keep_embeddings` holds the embedding")
    records = [{**pair, "label": "ab"[i % 2]} for i, pair in enumerate(pairs(8, 3))]
    path = str(write_records(tmp_path / "both.jsonl", records))
    both = pair_settings(tmp_path, train_file=path, valid_file=path)
    for key in ("train_file", "valid_file"):
        del both["tasks"]["likeness"][key]
    load_training_data(config(tmp_path, **both), tokenizer, 32, heard.append, prompt="a: ")
    assert any("'likeness' is trained without the encoder's default" in one for one in heard)


def test_the_loss_sums_over_every_two_pairs_with_different_scores() -> None:
    head = make_head(TaskConfig(kind="similarity"), LabelSet(()), EncoderShape(4, 1))
    torch.manual_seed(0)
    logits = torch.randn(7, 4, requires_grad=True)
    # Sentence 1 is of no pair; the second sentences are 4, 5 and 6.
    targets = torch.full((7, 2), -100.0)
    targets[[0, 2, 3]] = torch.tensor([[0.2, 4.0], [0.9, 5.0], [0.5, 6.0]])
    cosines = torch.nn.functional.cosine_similarity(logits[[0, 2, 3]], logits[[4, 5, 6]])
    scores = [0.2, 0.9, 0.5]
    total = torch.ones(())
    for i in range(3):
        for j in range(3):
            if scores[i] < scores[j]:
                total = total + torch.exp(20 * (cosines[i] - cosines[j]))
    loss = head.loss(logits, targets)
    assert float(loss.detach()) == pytest.approx(float(total.log().detach()), rel=1e-5)
    nothing = head.loss(logits, torch.full((7, 2), -100.0))
    assert float(nothing.detach()) == 0
    nothing.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert not logits.grad.any()


def test_the_sts_benchmark_is_read_without_a_header_and_other_tables_with_one(
    tmp_path: Path,
) -> None:
    bare = tmp_path / "sts.csv"
    bare.write_text('A girl sings.,"A girl, singing.",4.5\nOne.,Two.,0\n', encoding="utf-8")
    assert [(r.text, r.labels["likeness"]) for r in read(bare)] == [
        ("A girl sings.", Pair("A girl, singing.", 4.5)),
        ("One.", Pair("Two.", 0.0)),
    ]
    headed = tmp_path / "sts.tsv"
    headed.write_text("score\ttext2\ttext\n3\tb\ta\n\tc\td\n", encoding="utf-8")
    one, other = read(headed)
    assert one.labels == {"likeness": Pair("b", 3.0)}
    assert other.labels == {}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "a", "text2": "b", "score": 7}, r"pairs.jsonl:2: `score` is 7.*from 0 to 5"),
        ({"text": "a", "text2": "b", "score": "much"}, r"pairs.jsonl:2: `score` is 'much'"),
        ({"text": "a", "text2": "b", "score": True}, r"pairs.jsonl:2: `score` is True"),
        ({"text": "a", "text2": "b", "score": float("nan")}, r"pairs.jsonl:2: "),
        (
            {"text": "a", "score": 1},
            r"pairs.jsonl:2: a score, but no `text2` among the fields text, score; expected a pair",
        ),
        ({"text": "a", "tex2": "b", "score": 1}, r'did you mean "text2"'),
        ({"text": "a", "text2": " ", "score": 1}, r"pairs.jsonl:2: `text2` is only white space"),
        ({"text": "a", "text2": None, "score": 1}, r"pairs.jsonl:2: a score, but `text2` is empty"),
        ({"text": "a", "text2": 3, "score": 1}, r"pairs.jsonl:2: `text2` is 3"),
    ],
)
def test_the_error_for_an_invalid_pair_names_its_line(
    tmp_path: Path, record: dict[str, Any], message: str
) -> None:
    path = write_records(
        tmp_path / "pairs.jsonl", [{"text": "a", "text2": "b", "score": 1}, record]
    )
    with pytest.raises(DataError, match=message):
        read(path)
    with pytest.raises(DataError, match=message):
        discover_labels({"likeness": TASK}, [str(path)])


def test_the_data_check_reads_pairs_and_compares_both_sentences(tmp_path: Path) -> None:
    records = [
        {"text": "a man", "text2": "a woman", "score": 2},
        {"text": "a man", "text2": "a dog", "score": 1},
        {"text": "a man", "text2": "a woman", "score": 4},
        {"text": "a man", "text2": "a woman", "score": 9},
    ]
    path = write_records(tmp_path / "pairs.jsonl", records)
    report = check_data([str(path)], {"likeness": TASK})
    kinds = [(finding.kind.value, finding.where.rpartition(":")[2]) for finding in report.findings]
    assert sorted(kinds) == [("broken record", "4"), ("contradiction", "3")]
    (file,) = report.files
    assert (file.tasks["likeness"].labelled, file.tasks["likeness"].labels) == (3, {})


def test_unlabelled_sentences_may_be_pairs(tmp_path: Path) -> None:
    path = write_records(tmp_path / "texts.jsonl", [*pairs(3), {"text": "alone"}])
    result, _ = run(tmp_path, keep_embeddings={"texts": str(path)})
    assert result.best.exists()


def test_settings_that_do_not_apply_to_pairs_are_refused_by_name(tmp_path: Path) -> None:
    for values, message in (
        ({"dropout": 0.2}, r"`dropout` is for"),
        ({"labels": ["a"]}, r"`labels` is for"),
        ({"reads": "mix"}, r"`reads` is for"),
        ({"score_range": [5, 0]}, r"`score_range` is \[5.0, 0.0\], not a lower and a higher"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(None, {"tasks": {"likeness": {"kind": "similarity", **values}}})
    with pytest.raises(ConfigError, match=r"`score_range` is for similarity tasks only"):
        load_config(None, {"tasks": {"a": {"kind": "classification", "score_range": [0, 5]}}})


def test_a_task_of_pairs_is_stored_without_labels(tmp_path: Path) -> None:
    spec = TaskSpec("likeness", "similarity", ())
    assert TaskSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    with pytest.raises(ModelError, match="labels a; expected none: scored pairs"):
        TaskSpec("likeness", "similarity", ("a",))


def test_a_correlation_is_not_compared_sentence_by_sentence(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the predictions of likeness are neither right"):
        compare(config(tmp_path, **pair_settings(tmp_path)), out=tmp_path / "comparison")


def test_a_file_without_scores_is_refused(tmp_path: Path) -> None:
    path = write_records(tmp_path / "plain.jsonl", sentences(3))
    with pytest.raises(DataError, match=r"'likeness' has no label: none of 3 records has `score`"):
        discover_labels({"likeness": TASK}, [str(path)])
