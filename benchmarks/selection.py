"""Choose texts to label: how many labels of banking77 it saves against random choice.

    python benchmarks/selection.py --data DIR [--seeds N ...] [--rounds R] [--step K]

DIR holds `banking77/train.csv` and `test.csv`. Each strategy begins with K random records of the
training file, then labels K more a round: `select` as `manyheads data select` chooses, `random` at
random, `margin` those of the smallest margin alone. After each round a logistic regression on the
frozen encoder's embeddings is scored on the test file. Prints the mean accuracy by number of labels
with a 95 % interval of Student's t over the seeds.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from manyheads.config import make_config
from manyheads.evaluation import mean_interval, selection
from manyheads.inference.backends import pytorch

STRATEGIES = ("select", "random", "margin")
SCALE = 5.0
PENALTY = 5e-4
Floats = NDArray[Any]


def main() -> None:
    """Label in rounds with each strategy and seed, and print the curves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--step", type=int, default=100)
    parser.add_argument("--records", type=int, help="Read only the first of each file.")
    arguments = parser.parse_args()
    embed = pytorch.source_embedder(make_config({}), 1)
    folder = arguments.data / "banking77"
    vectors, names = read(folder / "train.csv", embed, arguments.records)
    tested, right = read(folder / "test.csv", embed, arguments.records)
    classes = sorted(set(names))
    labels = np.array([classes.index(name) for name in names])
    known = np.array([name in classes for name in right])
    gold = np.array(
        [classes.index(n) for n, is_known in zip(right, known, strict=True) if is_known]
    )
    print(
        "strategy  " + "  ".join(f"{(r + 1) * arguments.step:>15}" for r in range(arguments.rounds))
    )
    for strategy in STRATEGIES:
        curves = [
            curve(strategy, vectors, labels, tested[known], gold, len(classes), seed, arguments)
            for seed in arguments.seeds
        ]
        cells = []
        for values in zip(*curves, strict=True):
            found = mean_interval(values)
            spread = "" if found.low is None else f" +-{100 * (found.mean - found.low):.1f}"
            cells.append(f"{100 * found.mean:.1f}{spread}")
        print(f"{strategy:<8}  " + "  ".join(f"{cell:>15}" for cell in cells), flush=True)


def read(path: Path, embed: Callable[[Sequence[str]], Floats], limit: int | None) -> Any:
    """Return normalised embeddings and classes."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:limit]
    vectors = np.asarray(embed([row["text"] for row in rows]), np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return vectors, [row["category"] for row in rows]


def curve(
    strategy: str, vectors: Floats, labels: Floats, tested: Floats, gold: Floats, classes: int,
    seed: int, arguments: argparse.Namespace,
) -> list[float]:  # fmt: skip
    """Return the accuracy after each round."""
    generator = np.random.default_rng(seed)
    step = arguments.step
    labelled = generator.choice(len(vectors), step, replace=False)
    accuracies = []
    for _ in range(arguments.rounds):
        answer = fitted(vectors[labelled], labels[labelled], classes)
        accuracies.append(float((answer(tested).argmax(axis=1) == gold).mean()))
        pool = np.setdiff1d(np.arange(len(vectors)), labelled)
        shares = np.sort(answer(vectors[pool]), axis=1)
        if strategy == "random":
            new = generator.choice(len(pool), step, replace=False)
        elif strategy == "margin":
            new = np.argsort(shares[:, -1] - shares[:, -2])[:step]
        else:
            unsure = (1.0 - shares[:, -1]).astype(np.float64)
            new = np.array(selection.spread_rows(vectors[pool], unsure, step, seed))
        labelled = np.concatenate([labelled, pool[new]])
    return accuracies


def fitted(vectors: Floats, labels: Floats, classes: int) -> Callable[[Floats], Floats]:
    """Fit a logistic regression; classes without a label are never answered."""
    weights = torch.zeros(vectors.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=40, line_search_fn="strong_wolfe")
    inputs, targets = torch.from_numpy(SCALE * vectors), torch.from_numpy(labels)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(inputs @ weights + bias, targets)
        loss = loss + PENALTY * (weights**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    matrix, shift = SCALE * weights.detach().numpy(), bias.detach().numpy()
    shift = np.where(np.bincount(labels, minlength=classes) > 0, shift, -50.0)

    def answer(rows: Floats) -> Floats:
        logits = rows @ matrix + shift
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: Floats = powers / powers.sum(axis=1, keepdims=True)
        return shares

    return answer


if __name__ == "__main__":
    main()
