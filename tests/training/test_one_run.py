"""One run at a time in a process, which is left as it was found."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from manyheads.config import make_config
from manyheads.errors import RequestError
from manyheads.training import add_label
from manyheads.training.learning_curve import measure_curves
from manyheads.training.one_run import one_run
from manyheads.training.suspects import find_suspects
from training_setup import encoder_folder, sentences, write_records

CONFIG = make_config({"tasks": {"classification": {"kind": "classification"}}})
VERBS: dict[str, Callable[[], object]] = {
    "add_label": lambda: add_label("model", "task", train_file="new.jsonl", save_dir="extended"),
    "find_suspects": lambda: find_suspects("data.jsonl", CONFIG),
    "measure_curves": lambda: measure_curves(CONFIG, {}, [], []),
}


@pytest.mark.parametrize("verb", VERBS)
def test_whatever_trains_is_refused_while_another_thread_trains(verb: str) -> None:
    with (
        one_run(),
        ThreadPoolExecutor(1) as threads,
        pytest.raises(RequestError, match="another run is in progress in this process"),
    ):
        threads.submit(VERBS[verb]).result()


def test_the_search_for_suspects_leaves_the_process_as_it_found_it(tmp_path: Path) -> None:
    path = write_records(tmp_path / "data.jsonl", sentences(20, 1, fields=["label"]))
    config = CONFIG.model_copy(update={"model_name": str(encoder_folder()), "threads": 1})
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = torch.get_rng_state()
        find_suspects(str(path), config)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
