"""The systems that `inference.py` compares, each in its own process.

A process builds its system, then answers one request at a time: a pass over all sentences in
batches, a pass one by one, the accuracy. It sleeps in between, so that the thread pools of the
systems do not compete. Times are measured here, from texts to results, without the pipe.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manyheads.data.records import Record, read_records
from manyheads.evaluation import score
from manyheads.inference import GRAPHS, Predictor, Runtime, load_exported
from manyheads.inference.backends import pytorch
from manyheads.modeling import Compute, choose_compute
from manyheads.storage import read_manifest
from manyheads.tasks import kind_of
from rivals import BATCH_SIZES, Run, SeparateModels, SpacyPipeline, padded_loop

THREE = "three models, usual pipelines"
PADDED = "one model, padded loop"
SPACY = "spaCy, shared tok2vec"
PRODUCTS = "int8 products"

Single = Callable[[str], object]


@dataclass(frozen=True)
class Setup:
    """The input of all systems."""

    model: Path
    data: Path
    """The SNIPS folder."""
    threads: int
    sentences: int | None
    """Of the test set; None for all."""
    pad_to: int
    spacy_epochs: int


@dataclass
class Built:
    """A system that is ready to run."""

    batches: Run
    single: Single
    accuracy: Callable[[], dict[str, float]] | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    """For the report."""


class Process:
    """A system in its own process."""

    def __init__(self, name: str, setup: Setup) -> None:
        context = get_context("spawn")
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, setup), daemon=True)
        self._process.start()
        theirs.close()
        self.notes: dict[str, Any] = self._answer()

    def ask(self, what: str, **options: Any) -> Any:
        """Call a method of `_Worker` in the process."""
        self._pipe.send((what, options))
        return self._answer()

    def end(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise SystemExit(f"{self.name}: the process ended; its error is above") from None


def _serve(pipe: Connection, name: str, setup: Setup) -> None:
    torch.set_num_threads(setup.threads)
    with tempfile.TemporaryDirectory() as work:
        worker = _Worker(name, setup, Path(work))
        pipe.send(worker.built.notes)
        while True:
            try:
                what, options = pipe.recv()
            except EOFError:
                return
            pipe.send(getattr(worker, what)(**options))


class _Worker:
    """One system and the sentences that it reads."""

    def __init__(self, name: str, setup: Setup, work: Path) -> None:
        self.setup = setup
        self.work = work
        self.trained = pytorch.load_trained(setup.model)
        kinds: dict[str, str] = {
            task.kind: name for name, task in self.trained.config.tasks.items()
        }
        self.intent, self.slots = kinds["classification"], kinds["tagging"]
        self.texts = [record.text for record in self.records]
        rivals = {THREE: self._three, PADDED: self._padded, SPACY: self._spacy}
        self.built = (
            Built(len, len) if name == PRODUCTS else rivals.get(name, partial(self._ours, name))()
        )

    # ------------------------------------------------------------------------------- requests

    def batches(self) -> float:
        """Measure the seconds for all sentences in batches, after warming up each batch shape."""
        self.built.batches(self.texts)
        return timed(self.built.batches, self.texts)

    def singles(self, start: int, step: int, count: int) -> list[float]:
        """Measure the seconds of single sentences, every `step`th of the first `count`."""
        for text in self.texts[:10]:
            self.built.single(text)
        return [timed(self.built.single, text) for text in self.texts[:count][start::step]]

    def accuracy(self) -> dict[str, float]:
        """Score the results; empty for a system of which only the speed is compared."""
        return self.built.accuracy() if self.built.accuracy else {}

    def size(self) -> dict[str, float]:
        """Count sentences, their sub-tokens, and the operations that the encoder needs for one."""
        weights = sum(
            module.weight.numel()
            for module in self.trained.model.encoder.backbone.modules()
            if isinstance(module, torch.nn.Linear)
        )
        encodings = self.trained.tokenizer.encode_batch(self.texts)
        tokens = sum(len(encoding.ids) for encoding in encodings) / len(encodings)
        return {
            "sentences": len(self.texts),
            "tokens_per_sentence": tokens,
            "operations_per_sentence": 2.0 * weights * tokens,
        }

    def products(self, threads: int) -> float:
        """Measure int8 matrix products in operations per second."""
        return int8_rate(threads, read_manifest(self.setup.model).hidden_size)

    def stages(self, backend: str) -> dict[str, float]:
        """Return the seconds by stage of the fastest pass on one thread (no overlap)."""
        predictor = load_exported(self.setup.model, Runtime(backend, threads=1))
        predictor.predict(self.texts, embed=True)
        return min((self._watched_pass(predictor) for _ in range(5)), key=lambda s: s["total"])

    def _watched_pass(self, predictor: Predictor) -> dict[str, float]:
        spent = {"tokenising": 0.0, "graph": 0.0, "decoding": 0.0}
        watched = [
            (predictor.tokenizer, "encode_batch", "tokenising"),
            (predictor.backend, "run", "graph"),
            *((kind, "decode", "decoding") for kind in {kind_of(s.kind) for s in predictor.specs}),
        ]
        with ExitStack() as stack:
            for owner, name, stage in watched:
                stack.enter_context(_watched(owner, name, spent, stage))
            total = timed(lambda: predictor.predict(self.texts, embed=True))
        return {**spent, "Python around": total - sum(spent.values()), "total": total}

    # -------------------------------------------------------------------------------- systems

    def _ours(self, name: str) -> Built:
        if name in GRAPHS:
            predictor = load_exported(self.setup.model, Runtime(name, threads=self.setup.threads))
        else:
            precision: Any = name.removeprefix("torch ")
            compute: Compute = choose_compute("cpu", precision, self.setup.threads)
            trained: pytorch.TrainedModel = self.trained
            predictor = pytorch.predictor_of_model(
                trained.model, compute, trained.tokenizer, trained.max_length
            )
        return Built(
            lambda texts: predictor.predict(list(texts), embed=True),
            lambda text: predictor.predict([text], embed=True),
            lambda: self._scores(predictor),
        )

    def _three(self) -> Built:
        three = SeparateModels(self.setup.model, self.trained, self.work)
        sizes = {name: self._best_size(system) for name, system in three.systems.items()}

        def all_three(texts: Sequence[str]) -> None:
            for name, system in three.systems.items():
                system(texts, sizes[name])

        return Built(all_three, three.one, notes={"batch sizes": sizes})

    def _padded(self) -> Built:
        loops = {n: padded_loop(self.setup.model, self.trained, n, self.setup.pad_to)
                 for n in (1, 32)}  # fmt: skip
        size = self._best_size(lambda texts, n: loops[n](texts), tuple(loops))
        notes = {"batch size": size, "padded to": self.setup.pad_to}
        return Built(loops[size], lambda text: loops[1]([text]), notes=notes)

    def _spacy(self) -> Built:
        spacy = SpacyPipeline(
            self._read("train"), self.intent, self.slots, epochs=self.setup.spacy_epochs
        )
        return Built(spacy, lambda text: spacy([text]), lambda: spacy.scores(self.records))

    def _best_size(
        self,
        system: Callable[[Sequence[str], int], object],
        sizes: Sequence[int] = BATCH_SIZES,
    ) -> int:
        """Find the batch size at which a system is fastest, on a part of the sentences."""
        some = self.texts[:128]
        system(some[:8], sizes[0])
        return min(sizes, key=lambda size: min(timed(system, some, size) for _ in range(2)))

    def _scores(self, predictor: Predictor) -> dict[str, float]:
        tasks = score(predictor, [(self.records, (self.intent, self.slots))]).evaluation()["tasks"]
        names = {
            name: kind_of(kind).main_metric
            for name, kind in ((self.intent, "classification"), (self.slots, "tagging"))
        }
        values: dict[str, Any] = {name: tasks[name] for name in names}
        return {metric: values[name][metric] for name, metric in names.items()}

    @cached_property
    def records(self) -> list[Record]:
        """The test records."""
        return self._read("test")[: self.setup.sentences]

    def _read(self, part: str) -> list[Record]:
        specs = [self.trained.model.head(name).spec(name) for name in (self.intent, self.slots)]
        tasks = {name: self.trained.config.tasks[name] for name in (self.intent, self.slots)}
        label_sets = {spec.name: spec.label_set() for spec in specs}
        path = self.setup.data / part
        return list(read_records(os.fspath(path), tasks, label_sets, allow_unseen=True))


def int8_rate(threads: int, hidden: int) -> float:
    """Measure the machine's int8 matrix products in operations per second, at the fastest shape."""
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
        seconds = min(timed(session.run, None, feed) for _ in range(12))
        best = max(best, 2.0 * rows * inner * columns / seconds)
    return best


def timed(action: Callable[..., object], *arguments: object) -> float:
    """Measure the seconds of a call."""
    began = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - began


@contextmanager
def _watched(owner: Any, name: str, spent: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time of a function to a stage."""
    function = getattr(owner, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[stage] += time.perf_counter() - began

    setattr(owner, name, watched)
    try:
        yield
    finally:
        setattr(owner, name, function)
