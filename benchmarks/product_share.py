"""How near the products of an int8 graph come to the rate at which the machine multiplies.

    python benchmarks/product_share.py MODEL/onnx/manyheads_int8.onnx

The graph runs on one thread, in batches of 504 random sub-tokens, and onnxruntime's profile gives
the time of each operator. Counted are the products of the layers that are operators of their own,
with the conversion of their inputs to 8 bits: the attention's output, and both of the feed-forward
block. Those of queries, keys and values are inside the attention's operator.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from onnxruntime import InferenceSession, SessionOptions  # type: ignore[import-untyped]

from inference_systems import int8_rate
from manyheads.inference import sums_overflow
from threads_per_batch import batch_of

SENTENCES, TOKENS = 42, 12
PRODUCT = "DynamicQuantizeMatMul"


def main() -> None:
    """Profile the graph, and print the operators' times and the products' share."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("graph", type=Path)
    parser.add_argument("--rounds", type=int, default=80)
    arguments = parser.parse_args()
    events = profile(arguments.graph, arguments.rounds)
    spent: Counter[str] = Counter()
    operations = 0.0
    hidden = 0
    for event in events:
        about = event["args"]
        spent[about["op_name"]] += event["dur"]
        if about["op_name"] == PRODUCT:
            left, weight = (next(iter(shape.values())) for shape in about["input_type_shape"][:2])
            operations += 2.0 * math.prod(left) * weight[-1]
            hidden = max(hidden, min(left[-1], weight[-1]))
    for name, microseconds in spent.most_common(8):
        print(f"{name:28}{100 * microseconds / spent.total():6.1f} %")
    rate = max(int8_rate(1, hidden) for _ in range(3))
    reached = operations / (spent[PRODUCT] / 1e6)
    print(f"one thread multiplies {rate / 1e9:.0f} billion int8 operations a second")
    print(f"{PRODUCT} does {reached / 1e9:.0f} billion: {100 * reached / rate:.0f} %")


def profile(graph: Path, rounds: int) -> list[dict[str, Any]]:
    """Run a graph, and return the times of its operators as onnxruntime records them."""
    with tempfile.TemporaryDirectory() as folder:
        options = SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        if sums_overflow():  # as `OnnxBackend`
            options.add_session_config_entry("session.x64quantprecision", "1")
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = InferenceSession(
            graph, options, providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],
        )  # fmt: skip
        names = [value.name for value in session.get_inputs()]
        feeds = batch_of(SENTENCES, TOKENS).feeds(names)
        for _ in range(rounds):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    return [one for one in events if one["name"].endswith("_kernel_time")]


if __name__ == "__main__":
    main()
