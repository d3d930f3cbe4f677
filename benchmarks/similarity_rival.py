"""Sentence similarity as sentence-transformers trains it, beside `benchmarks/defaults.py stsb`.

    python benchmarks/similarity_rival.py --data DIR --seeds 1 2 3

The same encoder, its Trainer with `CosineSimilarityLoss`, batches of 16, its default rate and a
warm-up over a tenth of the steps, as in its example for STS-B. The epoch is chosen on the
validation data; the test data are scored once.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from accuracy import machine
from defaults import parts, table
from few import MODEL
from manyheads.config import available_cores
from manyheads.modeling import find_encoder

HIGHEST = 5.0
"""The highest score of the data; the loss expects scores from 0 to 1."""


def run(data: Path, seed: int, epochs: int) -> dict[str, float]:
    """Train with one seed, and return the rank correlation on the test data, in per cent."""
    library: Any = import_module("sentence_transformers")
    losses: Any = import_module("sentence_transformers.losses")
    evaluation: Any = import_module("sentence_transformers.evaluation")
    rows: Any = import_module("datasets").Dataset
    sets = parts(data, "stsb")

    def columns(part: str) -> dict[str, list[Any]]:
        records = sets[part]
        return {
            "sentence1": [record["text"] for record in records],
            "sentence2": [record["text2"] for record in records],
            "score": [record["score"] / HIGHEST for record in records],
        }

    def scorer(part: str) -> Any:
        found = columns(part)
        return evaluation.EmbeddingSimilarityEvaluator(
            found["sentence1"], found["sentence2"], found["score"], name=part,
            main_similarity="cosine",
        )  # fmt: skip

    model = library.SentenceTransformer(str(find_encoder(MODEL).folder), device="cpu")
    with tempfile.TemporaryDirectory(prefix="similarity-") as folder:
        arguments = library.SentenceTransformerTrainingArguments(
            output_dir=folder, num_train_epochs=epochs, per_device_train_batch_size=16,
            warmup_steps=0.1, seed=seed, eval_strategy="epoch", save_strategy="epoch",
            save_total_limit=1, load_best_model_at_end=True, use_cpu=True, report_to=[],
            metric_for_best_model="eval_valid_spearman_cosine",
        )  # fmt: skip
        trainer = library.SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=rows.from_dict(columns("train")),
            evaluator=scorer("valid"), loss=losses.CosineSimilarityLoss(model),
        )  # fmt: skip
        trainer.train()
        best = 100 * trainer.state.best_metric
    return {"dev": best, "test": 100 * scorer("test")(model)["test_spearman_cosine"]}


def main(argv: Sequence[str] | None = None) -> None:
    """Run all seeds, and print their table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=available_cores())
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    print(machine())
    runs = [run(arguments.data, seed, arguments.epochs) for seed in arguments.seeds]
    print(f"\n{table('sentence-transformers', runs, arguments.seeds)}")


if __name__ == "__main__":
    main()
