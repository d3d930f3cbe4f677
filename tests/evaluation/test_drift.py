"""The drift of the embedding from the original is measured and reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from equal_runs import stop_at
from manyheads.api import evaluate
from manyheads.cli import main
from manyheads.data.records import Record
from manyheads.errors import ModelError
from manyheads.evaluation.drift import MAX_SENTENCES, sample_texts
from manyheads.modeling import epoch_path, find_encoder, load_checkpoint
from manyheads.storage import Reading
from manyheads.tasks import Pair
from manyheads.tasks.metrics import drift_metrics
from training_setup import Killed, Spy, config, encoder_folder, run, train


def test_equal_vectors_have_no_drift_and_rotated_ones_keep_their_order() -> None:
    before = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    same = drift_metrics(before, 3 * before)
    assert (same["cosine"], same["sentences"]) == (pytest.approx(1), 9)
    assert same["similarity_correlation"] == pytest.approx(1)
    turned = drift_metrics(before, before[:, ::-1] * [1, -1, 1, 1])
    assert turned["cosine"] < 0.9
    assert turned["similarity_correlation"] == pytest.approx(1)
    other = drift_metrics(before, before[:, :3])
    assert other["cosine"] == 0
    assert drift_metrics(before[:0], before[:0])["sentences"] == 0


@pytest.mark.parametrize("vectors", [np.eye(1, 3), np.eye(2, 3) + 1, np.eye(3)])
def test_similarities_that_cannot_be_ranked_have_no_correlation(
    vectors: NDArray[np.float64],
) -> None:
    found = drift_metrics(vectors, vectors)
    assert (found["cosine"], found["similarity_correlation"]) == (pytest.approx(1), None)


@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_a_collapsed_embedding_has_lost_the_order_of_similarities(noise: float) -> None:
    rng = np.random.default_rng(0)
    before, same = rng.normal(size=(20, 8)), np.ones((20, 8))
    collapsed = drift_metrics(before, same + noise * rng.normal(size=(20, 8)))
    assert collapsed["similarity_correlation"] == 0.0
    assert drift_metrics(same, before)["similarity_correlation"] is None


def test_of_many_sentences_a_sample_is_spread_over_all() -> None:
    few = [Record("a", None, {"p": Pair("b", 1.0)}, ""), Record("a", None, {}, "")]
    assert sample_texts(few) == ["a", "b"]
    many = sample_texts(Record(str(i), None, {}, "") for i in range(1000))
    assert len(many) == len(set(many)) == MAX_SENTENCES
    assert (many[0], many[-1]) == ("0", "996")


def test_a_frozen_encoder_does_not_drift_and_a_trained_one_does(tmp_path: Path) -> None:
    still, _ = run(tmp_path / "still", learning_rate=0)
    moved, _ = run(tmp_path / "moved", learning_rate=1e-2)
    stays = evaluate(still.best).evaluation["drift"]
    goes = evaluate(moved.best).evaluation["drift"]
    assert stays["cosine"] == pytest.approx(1, abs=1e-5)
    assert stays["similarity_correlation"] > 0.999
    assert goes["cosine"] < 0.95
    # Both files of validation sentences are the same, so both used the same sentences.
    assert stays["sentences"] == goes["sentences"] <= 8
    told = moved.history[0]["metrics"]["drift"]
    assert told["cosine"] == pytest.approx(goes["cosine"], abs=1e-4)
    card = (moved.best / "README.md").read_text(encoding="utf-8")
    assert f"compared with before training | cosine | {told['cosine']:.4f} |" in card
    assert f"correlation of similarities | {told['similarity_correlation']:.4f} |" in card


def test_a_setting_of_the_source_that_is_not_applied_shows_as_drift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(encoder_folder(), folder)
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "who is "}, "default_prompt_name": "query"})
    )
    right, _ = run(tmp_path / "right", model_name=str(folder), learning_rate=0)
    assert evaluate(right.best).evaluation["drift"]["cosine"] == pytest.approx(1, abs=1e-5)
    monkeypatch.setattr(Reading, "prompt", "")
    wrong, _ = run(tmp_path / "wrong", model_name=str(folder), learning_rate=0)
    assert wrong.history[0]["metrics"]["drift"]["cosine"] < 0.999
    assert evaluate(right.best).evaluation["drift"]["cosine"] < 0.999


def test_evaluate_shows_the_drift_or_why_it_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(encoder_folder(), folder)
    result, _ = run(tmp_path, model_name=str(folder))
    found = tmp_path / "found.json"
    arguments = ["evaluate", str(result.best), "--backend", "torch", "--json", str(found)]
    main(arguments)
    assert "compared with the original encoder" in capsys.readouterr().out
    assert set(json.loads(found.read_text())["drift"]) == {
        "cosine", "similarity_correlation", "sentences",
    }  # fmt: skip
    main([*arguments, "--no-drift"])
    assert "the original encoder" not in capsys.readouterr().out
    assert json.loads(found.read_text())["drift"] == {"unknown": "it was not asked for"}
    shutil.rmtree(folder)
    main(arguments)
    assert "is not known: the original encoder cannot be loaded" in capsys.readouterr().err
    assert "no encoder folder" in json.loads(found.read_text())["drift"]["unknown"]


def test_a_resumed_run_measures_against_the_encoder_that_it_began_with(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(encoder_folder(), folder)

    settings = config(tmp_path, model_name=str(folder), checkpoint_every=1)
    with pytest.raises(Killed):
        train(settings, reporter=Spy(stop_at(3)))
    shutil.rmtree(folder)
    resumed = train(settings, resume=True)
    whole, _ = run(tmp_path / "whole")
    assert resumed.history[0]["metrics"]["drift"] == whole.history[0]["metrics"]["drift"]
    kept = load_checkpoint(epoch_path(settings.save_dir, 1)).training["original_embeddings"]
    assert len(kept["texts"]) == len(kept["vectors"]) <= 8


def test_nothing_is_downloaded_to_measure_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def snapshot_download(name: str, **options: object) -> str:
        asked.append(options["local_files_only"])
        raise OSError

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ModelError, match=r"is not on this machine.*Go online once"):
        find_encoder("somebody/encoder", download=False)
    assert asked == [True]
