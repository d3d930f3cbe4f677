"""Speed of prediction, side by side in one run: ours, and what people use today.

    python benchmarks/inference.py MODEL --data SNIPS_FOLDER [--threads N]

MODEL is a model that `manyheads export` was run on; SNIPS_FOLDER holds `train` and `test`. Every
system reads the same sentences as text and gives class, entities and embedding. The systems take
turns, and the median of the rounds counts. Writes inference.json, inference.md and inference.png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

import manyheads
import manyheads.predict as predict_module
from manyheads.backends.pytorch import TrainedModel, load_trained, make_predictor
from manyheads.cores import available_cores
from manyheads.decoding import CLASSIFICATION, TAGGING
from manyheads.devices import Compute, choose_compute
from manyheads.exported import ONNX, ONNX_INT8, exported_backends, load_exported
from manyheads.loading import resolve_model
from manyheads.metrics import main_metric
from manyheads.model_files import read_manifest
from manyheads.predict import Predictor
from manyheads.records import Record, read_records
from manyheads.scoring import score
from rivals import BATCH_SIZES, Run, SeparateModels, SpacyPipeline, padded_loop

OURS = "Manyheads int8"
THREE = "three models, usual pipelines"
PADDED = "one model, padded loop"
SPACY = "spaCy, shared tok2vec"


def main() -> None:
    """Measure all systems and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the SNIPS folder")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sentences", type=int, default=None, help="of the test set; default, all")
    parser.add_argument("--latencies", type=int, default=300, help="sentences asked one by one")
    parser.add_argument("--spacy-epochs", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report = Benchmark(arguments).run()
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "inference.json").write_text(json.dumps(report, indent=2) + "\n")
    text = markdown(report)
    (arguments.out / "inference.md").write_text(text)
    print(text)
    draw(report, arguments.out / "inference.png")
    print(f"Saved {arguments.out}/inference.json, .md and .png")


class Benchmark:
    """The systems under test and the sentences that they read."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.folder = resolve_model(arguments.model)
        self.threads: int = arguments.threads
        self.manifest = read_manifest(self.folder)
        self.trained = load_trained(self.folder)
        kinds: dict[str, str] = {t.kind: name for name, t in self.trained.config.tasks.items()}
        self.intent, self.slots = kinds[CLASSIFICATION], kinds[TAGGING]
        self.records = self._read("test")[: arguments.sentences]
        self.texts = [record.text for record in self.records]

    def run(self) -> dict[str, Any]:
        """Measure everything."""
        predictors = dict(self.predictors())
        accuracy = {name: self.accuracy(predictor) for name, predictor in predictors.items()}
        systems: dict[str, Run] = {}
        singles: dict[str, Callable[[str], object]] = {}
        for name, predictor in predictors.items():
            systems[name] = _batched(predictor)
            singles[name] = _single(predictor)
        with tempfile.TemporaryDirectory() as work:
            three = SeparateModels(self.folder, self.trained, Path(work))
            sizes = {}
            for name, system in three.systems.items():
                sizes[name] = self.best_size(system)
                systems[name] = _sized(system, sizes[name])
            singles[THREE] = three.one
            loops = {n: padded_loop(self.folder, self.trained, n) for n in (1, 32)}
            size = self.best_size(lambda texts, n: loops[n](texts), tuple(loops))
            systems[PADDED] = loops[size]
            singles[PADDED] = lambda text: loops[1]([text])
            if (spacy := self.spacy()) is not None:
                systems[SPACY] = spacy
                singles[SPACY] = lambda text: spacy([text])
                accuracy[SPACY] = spacy.scores(self.records)
            rates, latencies = self.measure(systems, singles)
        parts = [rates.pop(name) for name in three.systems]
        rates[THREE] = 1.0 / sum(1.0 / part for part in parts)
        stages = self.stages(predictors[OURS])
        return {
            "machine": machine(self.threads),
            "model": self.trained.config.model_name,
            "sentences": len(self.texts),
            "sentences_per_second": rates,
            "latency_ms": latencies,
            "accuracy": accuracy,
            "batch_sizes": {**sizes, PADDED: size},
            "separate_sentences_per_second": dict(zip(three.systems, parts, strict=True)),
            "ratios": {name: rates[OURS] / rate for name, rate in rates.items()},
            "latency_ratios": {
                name: values["p50"] / latencies[OURS]["p50"] for name, values in latencies.items()
            },
            "stages_seconds": stages,
            **self.machine_share(rates[OURS], stages),
        }

    def predictors(self) -> Iterator[tuple[str, Predictor]]:
        """Yield our own, in every arithmetic there is."""
        there = exported_backends(self.manifest)
        for backend, name in ((ONNX_INT8, OURS), (ONNX, "Manyheads ONNX float32")):
            if backend not in there:
                raise SystemExit(f"{self.folder} has no {backend} graph: run manyheads export")
            yield name, load_exported(self.manifest, backend, threads=self.threads)
        for precision in ("float32", "bf16"):
            compute: Compute = choose_compute("cpu", precision, self.threads)
            trained: TrainedModel = self.trained
            yield (
                f"Manyheads torch {precision}",
                make_predictor(trained.model, compute, trained.tokenizer, trained.max_length),
            )

    def best_size(
        self,
        system: Callable[[Sequence[str], int], object],
        sizes: Sequence[int] = BATCH_SIZES,
    ) -> int:
        """Find the batch size at which a system is fastest, on a part of the sentences."""
        some = self.texts[:128]
        system(some[:8], sizes[0])
        return min(sizes, key=lambda size: min(_timed(system, some, size) for _ in range(2)))

    def spacy(self) -> SpacyPipeline | None:
        """Train spaCy's pipeline, if it is installed."""
        if find_spec("spacy") is None:
            print("spaCy is not installed: pip install -r benchmarks/requirements.txt")
            return None
        return SpacyPipeline(
            self._read("train"), self.intent, self.slots, epochs=self.arguments.spacy_epochs
        )

    def accuracy(self, predictor: Predictor) -> dict[str, float]:
        """Score a predictor on the sentences."""
        tasks = score(predictor, [(self.records, (self.intent, self.slots))]).evaluation()["tasks"]
        names = {self.intent: main_metric(CLASSIFICATION), self.slots: main_metric(TAGGING)}
        values: dict[str, Any] = {name: tasks[name] for name in names}
        return {metric: values[name][metric] for name, metric in names.items()}

    def measure(
        self, systems: Mapping[str, Run], singles: Mapping[str, Callable[[str], object]]
    ) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Let the systems take turns; return sentences a second, and milliseconds a sentence."""
        seconds: dict[str, list[float]] = {name: [] for name in systems}
        waits: dict[str, list[float]] = {name: [] for name in singles}
        some = self.texts[: self.arguments.latencies]
        for round_number in range(self.arguments.rounds):
            print(f"round {round_number + 1} of {self.arguments.rounds}", flush=True)
            for name, system in systems.items():
                system(self.texts[:64])
                seconds[name].append(_timed(system, self.texts))
        for name, single in singles.items():
            for text in some[:10]:
                single(text)
            waits[name] = [1e3 * _timed(single, text) for text in some]
        rates = {n: len(self.texts) / statistics.median(times) for n, times in seconds.items()}
        return rates, {
            name: {"p50": float(np.percentile(v, 50)), "p99": float(np.percentile(v, 99))}
            for name, v in waits.items()
        }

    def stages(self, predictor: Predictor) -> dict[str, float]:
        """Say where the time of one pass goes, in seconds; nothing overlaps here."""
        spent = {"tokenising": 0.0, "graph": 0.0, "decoding": 0.0}
        texts = self.texts
        predictor.predict(texts, embed=True)
        with (
            _watched(predictor._tokenizer, "encode_batch", spent, "tokenising"),
            _watched(predictor.backend, "run", spent, "graph"),
            _watched(predict_module, "decode", spent, "decoding"),
        ):
            total = _timed(lambda: [predictor.predict(texts[i : i + 2048], embed=True)
                                    for i in range(0, len(texts), 2048)])  # fmt: skip
        return {**spent, "Python around": total - sum(spent.values()), "total": total}

    def machine_share(self, rate: float, stages: Mapping[str, float]) -> dict[str, Any]:
        """Relate the work that the sentences need to what the machine can multiply in int8."""
        weights = sum(
            module.weight.numel()
            for module in self.trained.model.encoder.backbone.modules()
            if isinstance(module, torch.nn.Linear)
        )
        encodings = self.trained.tokenizer.encode_batch(self.texts)
        tokens = sum(len(encoding.ids) for encoding in encodings) / len(encodings)
        needed = 2.0 * weights * tokens
        peak = int8_rate(self.threads, self.manifest.hidden_size)
        return {
            "tokens_per_sentence": tokens,
            "operations_per_sentence": needed,
            "int8_operations_per_second": peak,
            "share_of_int8_rate": rate * needed / peak,
            "share_of_int8_rate_in_graph": len(self.texts) * needed / stages["graph"] / peak,
        }

    def _read(self, part: str) -> list[Record]:
        specs = [self.trained.model.head(name).spec(name) for name in (self.intent, self.slots)]
        tasks = {name: self.trained.config.tasks[name] for name in (self.intent, self.slots)}
        label_sets = {spec.name: spec.label_set() for spec in specs}
        path = self.arguments.data / part
        return list(read_records(os.fspath(path), tasks, label_sets, allow_unseen=True))


def int8_rate(threads: int, hidden: int) -> float:
    """Measure the machine's int8 matrix products, in operations a second, at their best shape."""
    import onnx
    import onnxruntime  # type: ignore[import-untyped]
    from onnx import TensorProto, helper, numpy_helper

    best = 0.0
    random = np.random.default_rng(0)
    for rows, inner, columns in ((2048, hidden, 4 * hidden), (2048, 4 * hidden, hidden),
                                 (2048, 2048, 2048)):  # fmt: skip
        weights = random.integers(-127, 128, (inner, columns)).astype(np.int8)
        graph = helper.make_graph(
            [helper.make_node("MatMulInteger", ["left", "right"], ["product"])],
            "product",
            [helper.make_tensor_value_info("left", TensorProto.UINT8, [rows, inner])],
            [helper.make_tensor_value_info("product", TensorProto.INT32, [rows, columns])],
            [numpy_helper.from_array(weights, "right")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feed = {"left": random.integers(0, 256, (rows, inner)).astype(np.uint8)}
        seconds = min(_timed(lambda: session.run(None, feed)) for _ in range(12))  # noqa: B023
        best = max(best, 2.0 * rows * inner * columns / seconds)
    return best


def machine(threads: int) -> dict[str, Any]:
    """Describe the machine and the software."""
    import onnxruntime
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


def markdown(report: Mapping[str, Any]) -> str:
    """Make the tables for the documentation."""
    rates, latencies = report["sentences_per_second"], report["latency_ms"]
    where = report["machine"]
    lines = [
        f"{report['sentences']:,} SNIPS test sentences of {report['tokens_per_sentence']:.1f} "
        f"sub-tokens, from text to class, slots and embedding; {where['processor']}, "
        f"{where['threads']} threads.",
        "",
        "| system | sentences/s | int8 is faster by | p50 ms | p99 ms | accuracy | slot F1 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, rate in sorted(rates.items(), key=lambda pair: -pair[1]):
        wait, exact = latencies[name], report["accuracy"].get(name, {})
        scores = [f"{100 * exact[key]:.2f}" if key in exact else "" for key in ("accuracy", "f1")]
        lines.append(
            f"| {name} | {rate:,.0f} | {report['ratios'][name]:.1f} | {wait['p50']:.2f} | "
            f"{wait['p99']:.2f} | {' | '.join(scores)} |"
        )
    stages = report["stages_seconds"]
    lines += ["", "Where the time of the int8 model goes:", "", "| stage | share |", "|---|---:|"]
    lines += [
        f"| {name} | {100 * value / stages['total']:.1f} % |"
        for name, value in stages.items()
        if name != "total"
    ]
    lines += [
        "",
        f"The machine multiplies {report['int8_operations_per_second'] / 1e9:,.0f} billion int8 "
        f"operations a second; prediction uses {100 * report['share_of_int8_rate']:.0f} % of that "
        f"end to end, and {100 * report['share_of_int8_rate_in_graph']:.0f} % within the graph.",
        "",
    ]
    return "\n".join(lines)


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw the systems' speed and latency."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rates = dict(sorted(report["sentences_per_second"].items(), key=lambda pair: pair[1]))
    names = list(rates)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 0.5 * len(names) + 1.6), sharey=True)
    colours = ["#1f77b4" if name.startswith("Manyheads") else "#9a9a9a" for name in names]
    for axes, values, title, form in (
        (left, list(rates.values()), "sentences a second, in batches", "{:,.0f}"),
        (right, [report["latency_ms"][n]["p50"] for n in names], "ms a sentence, one by one (p50)",
         "{:.1f}"),
    ):  # fmt: skip
        bars = axes.barh(names, values, color=colours)
        axes.bar_label(bars, [form.format(value) for value in values], padding=3)
        axes.set_xlim(0, 1.18 * max(values))
        axes.set_title(title, fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=140)


def _sized(system: Callable[[Sequence[str], int], object], size: int) -> Run:
    return lambda texts: system(texts, size)


def _batched(predictor: Predictor) -> Run:
    return lambda texts: predictor.predict(list(texts), embed=True)


def _single(predictor: Predictor) -> Callable[[str], object]:
    return lambda text: predictor.predict([text], embed=True)


def _timed(action: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - began


@contextmanager
def _watched(owner: Any, name: str, spent: dict[str, float], stage: str) -> Iterator[None]:
    """Add up the time that a function takes, under a stage."""
    function = getattr(owner, name)

    def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[stage] += time.perf_counter() - began

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, function)


def _lines(path: str) -> list[str]:
    try:
        with Path(path).open(encoding="utf-8") as file:
            return list(islice(file, 200))
    except OSError:
        return []


if __name__ == "__main__":
    main()
