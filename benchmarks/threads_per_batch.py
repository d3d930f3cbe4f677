"""Compare one and two threads for a batch that is alone, and two threads with two lanes.

    python benchmarks/threads_per_batch.py GRAPH.onnx

GRAPH is an exported graph, such as `onnx/manyheads_int8.onnx` of a model folder. A lane is a
thread with a batch of its own. The fastest of many rounds counts; see `ALONE_TOKENS` in
`manyheads/inference/parallel.py`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np

from manyheads.inference import processor
from manyheads.inference.backends import onnx
from manyheads.text import WORD_FEATURE_COLUMNS, Batch

SIZES = ((1, 8), (1, 16), (1, 32), (1, 48), (1, 64), (1, 96), (1, 128), (16, 16), (32, 16))
"""Sentences and tokens of each."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each size of a batch."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("graph", type=Path)
    graph = parser.parse_args(arguments).graph.read_bytes()
    one, two = (onnx.OnnxBackend(graph, name="graph", threads=count) for count in (1, 2))
    print(
        f"{processor.processor_kind()}\ntokens  1 thread  2 threads  2 batches in lanes  one by one"
    )
    for sentences, tokens in SIZES:
        batch = batch_of(sentences, tokens)
        rounds = 150 if sentences == 1 else 40
        single = fastest(partial(one.run, batch), rounds)
        joint = fastest(partial(two.run, batch), rounds)
        lanes = fastest(partial(in_lanes, one, batch), rounds)
        size = sentences * tokens
        print(f"{size:6}  {single:8.2f}  {joint:9.2f}  {lanes:18.2f}  {2 * joint:10.2f}")


def batch_of(sentences: int, tokens: int) -> Batch:
    """Make sentences of as many random tokens, a word each, of whose letters nothing is known."""
    shape = (sentences, tokens)
    ids = np.random.default_rng(0).integers(1000, 20000, shape)
    words = np.tile(np.arange(1, tokens - 1), (sentences, 1))
    features = np.zeros((*words.shape, WORD_FEATURE_COLUMNS), np.int64)
    return Batch(ids, np.ones(shape, np.int64), words, np.ones(words.shape, np.bool_), features)


def in_lanes(backend: onnx.OnnxBackend, batch: Batch) -> None:
    """Run a batch twice at the same time."""
    threads = [Thread(target=backend.run, args=(batch,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def fastest(run: Callable[[], object], rounds: int) -> float:
    """Return the milliseconds of the fastest round."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1e3 * min(times)


if __name__ == "__main__":
    main()
