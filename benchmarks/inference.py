"""Speed of prediction: Manyheads and common alternatives, side by side in one run.

    python benchmarks/inference.py MODEL --data SNIPS_FOLDER [--threads N]

MODEL is an exported model; SNIPS_FOLDER holds `train` and `test`. Every system reads the same
sentences as text and returns class, entities and embedding. Each runs in its own process. They take
turns, and the result is the median of the rounds. Writes inference.json, inference.md and
inference.png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import manyheads
from inference_report import draw, markdown
from inference_systems import PADDED, PRODUCTS, SPACY, THREE, Process, Setup
from manyheads.config import available_cores
from manyheads.inference import ONNX_INT8, OPENVINO_INT8, exported_backends
from manyheads.storage import read_manifest, resolve_model


def main() -> None:
    """Measure all systems and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="SNIPS folder")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=None, help="test sentences; default: all")
    parser.add_argument("--latencies", type=int, default=300, help="sentences predicted one by one")
    parser.add_argument(
        "--pad-to", type=int, default=128,
        help="padded length of the plain loop in sub-tokens; default: that of max_length",
    )  # fmt: skip
    parser.add_argument("--spacy-epochs", type=int, default=10)
    arguments = parser.parse_args()
    setup = Setup(
        resolve_model(arguments.model), arguments.data, arguments.threads, arguments.sentences,
        arguments.pad_to, arguments.spacy_epochs,
    )  # fmt: skip
    report = run(setup, arguments.rounds, arguments.latencies)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "inference.json").write_text(json.dumps(report, indent=2) + "\n")
    text = markdown(report)
    (arguments.out / "inference.md").write_text(text)
    print(text)
    draw(report, arguments.out / "inference.png")
    print(f"Saved {arguments.out}/inference.json, .md and .png")


def run(setup: Setup, rounds: int, latencies: int) -> dict[str, Any]:
    """Measure everything."""
    names = system_names(setup.model)
    backends = [name for name in names if name in (ONNX_INT8, OPENVINO_INT8)]
    systems = {}
    for name in names:
        print(f"starting: {name}", flush=True)
        systems[name] = Process(name, setup)
    products = Process(PRODUCTS, setup)
    load = [os.getloadavg()[0]]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    waits: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[int, list[float]] = {threads: [] for threads in {1, setup.threads}}
    for turn in range(rounds):
        print(f"round {turn + 1} of {rounds}", flush=True)
        for threads, found in peaks.items():
            found.append(products.ask("products", threads=threads))
        for name, system in systems.items():
            seconds[name].append(system.ask("batches"))
        for name, system in systems.items():
            waits[name] += system.ask("singles", start=turn, step=rounds, count=latencies)
        load.append(os.getloadavg()[0])
    size = products.ask("size")
    rates = {name: size["sentences"] / statistics.median(s) for name, s in seconds.items()}
    ours = max(backends, key=rates.__getitem__)
    report = {
        "machine": machine(setup.threads),
        "load_average": load,
        "rounds": rounds,
        **size,
        "ours": ours,
        "notes": {name: system.notes for name, system in systems.items() if system.notes},
        "seconds": seconds,
        "sentences_per_second": rates,
        "latency_ms": {name: percentiles(values) for name, values in waits.items()},
        "accuracy": {name: system.ask("accuracy") for name, system in systems.items()},
        "stages_seconds": {name: systems[name].ask("stages", backend=name) for name in backends},
        "int8_operations_per_second": {str(n): max(found) for n, found in peaks.items()},
    }
    for system in (*systems.values(), products):
        system.end()
    return report | derived(report, setup.threads)


def system_names(model: Path) -> list[str]:
    """Return the names of the systems: Manyheads in every available precision, and the others."""
    there = exported_backends(read_manifest(model))
    if not {ONNX_INT8, OPENVINO_INT8} & set(there):
        raise SystemExit(f"{model} has no int8 graph: run manyheads export")
    others = [THREE, PADDED]
    if find_spec("spacy") is None:
        print("spaCy is not installed: pip install -r benchmarks/requirements.txt")
    else:
        others.append(SPACY)
    return [*there, "torch float32", "torch bf16", *others]


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile in milliseconds."""
    return {f"p{q}": 1e3 * float(np.percentile(seconds, q)) for q in (50, 99)}


def derived(report: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Relate the fastest int8 graph to the other systems and to the machine's rate of products."""
    ours, rates, waits = report["ours"], report["sentences_per_second"], report["latency_ms"]
    peaks, needed = report["int8_operations_per_second"], report["operations_per_sentence"]
    stages = report["stages_seconds"][ours]
    on_one_thread = report["sentences"] * needed / peaks["1"]
    return {
        "ratios": {name: rates[ours] / rate for name, rate in rates.items()},
        "latency_ratios": {name: w["p50"] / waits[ours]["p50"] for name, w in waits.items()},
        "share_of_int8_rate": rates[ours] * needed / peaks[str(threads)],
        "share_of_int8_rate_on_one_thread": on_one_thread / stages["total"],
        "share_of_int8_rate_in_graph": on_one_thread / stages["graph"],
    }


def machine(threads: int) -> dict[str, Any]:
    """Describe the machine and the software."""
    import onnxruntime  # type: ignore[import-untyped]
    import transformers

    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo")
             if line.startswith("model name")]  # fmt: skip
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": available_cores(),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "manyheads": manyheads.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "onnxruntime": onnxruntime.__version__,
    }


def _lines(path: str) -> list[str]:
    try:
        with Path(path).open(encoding="utf-8") as file:
            return list(islice(file, 200))
    except OSError:
        return []


if __name__ == "__main__":
    main()
