"""Measure what calibration and scope add to the time of prediction.

    python benchmarks/scoring_cost.py MODEL --data FILE --backend onnx-int8

The same predictor answers the texts of FILE with its calibration and scope and without, in turn, on
one thread. Times are processor times, which depend less on other work of the machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import median

from manyheads.data.records import read_records
from manyheads.inference import Runtime, load_model


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the fastest round of each way, its ratio to neither, and the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", required=True, help="records, such as SNIPS's test folder")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--rounds", type=int, default=11)
    given = parser.parse_args(arguments)
    loaded = load_model(given.model, Runtime(given.backend, threads=1))
    predictor = loaded.predictor
    texts = [record.text for record in read_records(given.data, loaded.config.tasks, {})]
    scorings, scope = predictor.scorings, predictor.scope
    ways = {
        "neither": ({}, None),
        "calibration": (scorings, None),
        "scope": ({}, scope),
        "both": (scorings, scope),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    # The first round warms up.
    for number in range(given.rounds + 1):
        for name in list(ways)[:: 1 if number % 2 else -1]:
            predictor.scorings, predictor.scope = ways[name]
            began = time.process_time()
            predictor.predict(texts)
            if number:
                seconds[name].append(time.process_time() - began)
    print(f"{len(texts)} texts, {predictor.backend.name}")
    for name, times in seconds.items():
        ratios = [time / plain for time, plain in zip(times, seconds["neither"], strict=True)]
        fastest = min(times) / min(seconds["neither"]) - 1
        print(f"{name:12} {1e3 * min(times):6.0f} ms, {fastest:+.1%}, {median(ratios) - 1:+.1%}")


if __name__ == "__main__":
    main()
