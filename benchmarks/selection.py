"""Choose texts to label: how many labels of banking77 it saves against random choice.

    python benchmarks/selection.py --data DIR [--seeds N ...] [--rounds R] [--step K]
        [--picture FILE]

DIR holds `banking77/train.csv` and `test.csv`. Each strategy begins with K random records of the
training file, then labels K more a round: `select` as `manyheads data select` chooses, `random` at
random, `margin` those of the smallest margin alone. After each round a logistic regression on the
frozen encoder's embeddings is scored on the test file. Prints the mean accuracy by number of
labels, and the labels saved: how many fewer a strategy needs for the accuracy that random choice
has after the last round. Intervals are 95 % ones of Student's t over the seeds.
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
    parser.add_argument("--picture", type=Path, help="Draw the curves (needs matplotlib).")
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
    counts = [(number + 1) * arguments.step for number in range(arguments.rounds)]
    print("strategy  " + "  ".join(f"{count:>15,}" for count in counts))
    curves: dict[str, list[list[float]]] = {}
    for strategy in STRATEGIES:
        curves[strategy] = [
            curve(strategy, vectors, labels, tested[known], gold, len(classes), seed, arguments)
            for seed in arguments.seeds
        ]
        cells = [_percent(values) for values in zip(*curves[strategy], strict=True)]
        print(f"{strategy:<8}  " + "  ".join(f"{cell:>15}" for cell in cells), flush=True)
    for strategy in (one for one in STRATEGIES if one != "random"):
        pairs = zip(curves[strategy], curves["random"], strict=True)
        found = mean_interval([counts[-1] - needed(own, other[-1], counts) for own, other in pairs])
        between = "" if found.low is None else f" ({found.low:,.0f} to {found.high:,.0f})"
        print(f"{strategy} saves {found.mean:,.0f}{between} of {counts[-1]:,} labels")
    if arguments.picture is not None:
        draw(curves, counts, arguments.picture)


def needed(accuracies: Sequence[float], target: float, counts: Sequence[int]) -> float:
    """Return from how many labels on a curve stays at an accuracy, or the most where it does not.

    Between two rounds the curve is a line.
    """
    below = [i for i, one in enumerate(accuracies) if one < target]
    if not below:
        return counts[0]
    last = below[-1]
    if last + 1 == len(counts):
        return counts[-1]
    rise = (target - accuracies[last]) / (accuracies[last + 1] - accuracies[last])
    return counts[last] + rise * (counts[last + 1] - counts[last])


def _percent(values: Sequence[float]) -> str:
    found = mean_interval(values)
    spread = "" if found.low is None else f" +-{100 * (found.mean - found.low):.1f}"
    return f"{100 * found.mean:.1f}{spread}"


def draw(curves: dict[str, list[list[float]]], counts: Sequence[int], path: Path) -> None:
    """Draw mean and interval of each strategy."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "manyheads", "font.size": 10})
    figure, axes = pyplot.subplots(figsize=(6.4, 3.8), layout="constrained")
    for strategy, marker in zip(STRATEGIES, "os^", strict=True):
        found = [mean_interval(values) for values in zip(*curves[strategy], strict=True)]
        means = [100 * one.mean for one in found]
        axes.plot(counts, means, marker=marker, label=strategy)
        if found[0].low is not None:
            low, high = ([100 * getattr(one, edge) for one in found] for edge in ("low", "high"))
            axes.fill_between(counts, low, high, alpha=0.2)
    axes.set_xlabel("labels")
    axes.set_ylabel("accuracy on the test file, %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


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
