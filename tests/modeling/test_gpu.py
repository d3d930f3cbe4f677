"""On a GPU no step blocks, and results equal those on a CPU.

Skipped where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from manyheads.api import load
from manyheads.modeling import choose_compute
from manyheads.training import forward_backward, update
from manyheads.training.data import Schedule, plan_epoch
from run_settings import RUNS
from training_setup import config, prepared, run, sentences, write_records

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    # torch warns once when it is asked to report blocking operations.
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
]


@pytest.fixture
def blocking_is_an_error() -> Iterator[Any]:
    """A switch after which operations that wait for the GPU raise."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", [name for name in RUNS if name != "measured gradients"])
def test_no_step_blocks(
    name: str, precision: str, tmp_path: Path, blocking_is_an_error: Any
) -> None:
    made = config(tmp_path, device="cuda", precision=precision, batch_size=1, **RUNS[name])
    one = prepared(made)
    steps = list(plan_epoch(one.data.sources, Schedule.of(made), seed=made.seed, epoch=0))
    assert len(steps) > 4
    for number, step in enumerate(steps):
        if number == 4:  # the first steps of each task prepare the libraries
            blocking_is_an_error()
        made_it = update(one, forward_backward(one, step))
        one.state.step += 1
    torch.cuda.set_sync_debug_mode("default")
    assert bool(made_it)


def test_the_same_precision_is_chosen_each_time() -> None:
    assert len({choose_compute("cuda").precision for _ in range(10)}) == 1


def test_a_gpu_learns_the_tasks_and_both_devices_predict_the_same(tmp_path: Path) -> None:
    write_records(tmp_path / "train.jsonl", sentences(200, 1))
    result, _ = run(tmp_path, device="cuda", precision="auto", num_epochs=5, schedule="joint")
    assert result.best_score > 0.9
    texts = [record["tokens"] for record in sentences(20, 3)]
    found = [load(result.best, device=name).predict(texts, embed=True) for name in ("cuda", "cpu")]
    for one, other in zip(*found, strict=True):
        assert one.results["classification"].label == other.results["classification"].label
        tags = [[token.tag for token in each.results["ner"].tokens] for each in (one, other)]
        assert tags[0] == tags[1]
        assert np.allclose(one.embedding, other.embedding, atol=1e-3)
