"""Exported models predict without PyTorch and start fast; file prediction resumes."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from absent import without
from manyheads.errors import DataError, ManyheadsError, ModelError, RequestError
from manyheads.exporting import export_model
from manyheads.inference import (
    GRAPHS,
    ParallelBackend,
    Runtime,
    Text,
    describe_run,
    exported_backends,
    load_model,
    open_backend,
    report_name,
    write_predictions,
)
from manyheads.inference.backends.onnx import OnnxBackend
from manyheads.inference.files import partial_path
from manyheads.inference.graphs import runnable_backends
from manyheads.storage import add_files, read_manifest
from manyheads.tasks import ClassResult, Prediction
from manyheads.training.signals import StopRequest

TEXTS = [
    "John lives in Paris",
    "will Mary eat in Rome?",
    "",
    "the weather in London was bad " * 30,
    "Zoë 😀 visits 東京",
]

BARE = without(
    "torch", "transformers", "sentence_transformers", "accelerate", "sklearn", "scipy", "pandas",
    "onnx", "onnxscript",
)  # fmt: skip


@pytest.fixture(scope="module")
def best(exported_model: Path) -> Path:
    return exported_model


def in_bare_environment(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BARE + script, *arguments],
        capture_output=True, text=True, timeout=600, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def as_json(predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    return [prediction.to_json() for prediction in predictions]


def assert_same(found: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """Equal, but for the rounding of numbers."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key], tolerance)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, tolerance)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=tolerance)
    else:
        assert found == expected


def test_a_bare_environment_predicts_what_pytorch_does(best: Path) -> None:
    script = """
import json, sys
import manyheads
model = manyheads.load(sys.argv[1], backend="onnx", threads=1)
found = [p.to_json() for p in model.predict(json.loads(sys.argv[2]), embed=True)]
assert not {"torch", "transformers"} & set(sys.modules)
print(json.dumps(found))
"""
    done = in_bare_environment(script, str(best), json.dumps(TEXTS))
    assert done.returncode == 0, done.stderr
    exact = load_model(best, Runtime("torch", threads=1)).predictor
    expected = as_json(exact.predict(TEXTS, embed=True))
    assert_same(json.loads(done.stdout), expected)
    assert expected[3]["windows"] > 1
    assert expected[2]["empty"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "{best}", "John lives in Paris", "--threads", "1"],
        ["predict", "{best}", "--format", "jsonl", "--embed", "Mary eats"],
        ["info", "{best}"],
        ["evaluate", "{best}", "--threads", "1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_run_in_a_bare_environment(best: Path, arguments: list[str]) -> None:
    script = """
from manyheads.cli import main
status = main(sys.argv[1:])
assert not {"torch", "transformers"} & set(sys.modules)
sys.exit(status)
"""
    done = in_bare_environment(script, *(a.replace("{best}", str(best)) for a in arguments))
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.soak
def test_the_tests_of_prediction_pass_in_a_bare_environment() -> None:
    names = [
        "inference/test_parallel.py", "inference/test_predictor.py", "tasks/test_decoding.py",
        "text/test_tokenization.py", "text/test_windows.py",
    ]  # fmt: skip
    script = """
import pytest
status = pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]])
assert not {"torch", "transformers"} & set(sys.modules)
sys.exit(status)
"""
    done = in_bare_environment(script, *(str(Path(__file__).parents[1] / name) for name in names))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_model_without_graphs_names_the_missing_packages(best: Path, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(best, tmp_path / "best")
    add_files(read_manifest(folder), {}, remove=[GRAPHS[b] for b in ("onnx", "onnx-int8")])
    script = "from manyheads.cli import main; sys.exit(main(sys.argv[1:]))"
    done = in_bare_environment(script, "predict", str(folder), "John")
    assert done.returncode == 2
    assert ".[train]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_short_text_takes_little_time_and_memory(best: Path) -> None:
    # In processor time, by that of the libraries' own imports, on whatever machine.
    script = """
from time import process_time
begun = process_time()
import numpy, onnxruntime, pydantic, safetensors, tokenizers, typer, yaml
loaded = process_time()
from manyheads.cli import main
status = main(["predict", sys.argv[1], "John lives in Paris", "--threads", "1"])
# Not ru_maxrss, which is that of the parent where that was larger.
peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print((process_time() - loaded) / (loaded - begun), *peak, file=sys.stderr)
sys.exit(status)
"""
    done = in_bare_environment(script, str(best))
    assert done.returncode == 0, done.stderr
    ratio, kilobytes = map(float, done.stderr.split()[-2:])
    assert ratio < 5
    assert kilobytes < 250_000


# ------------------------------------------------------------------------- choice of the file


def test_the_fastest_passing_graph_is_taken_and_named(best: Path) -> None:
    manifest = read_manifest(best)
    speeds = {
        backend: manifest.read_json(report_name(backend))["sentences_per_second"]
        for backend in ("onnx", "onnx-int8")
    }
    order = exported_backends(manifest)
    assert list(order) == sorted(speeds, key=lambda backend: -speeds[backend])
    assert runnable_backends(manifest)[0] == order[0]
    predictor = load_model(best, Runtime(threads=1)).predictor
    assert predictor.backend.name == f"{order[0]} ({Path(GRAPHS[order[0]]).name})"
    # A run's folder stands for its best model.
    best_of_run = load_model(best.parent, Runtime(threads=1))
    assert best_of_run.predictor.backend.name == predictor.backend.name
    assert load_model(best, Runtime(threads=1)).config.tasks.keys() == {"intent", "ner"}


def test_batches_and_texts_alone_each_get_the_graph_that_is_fastest_for_them() -> None:
    measured = {"onnx": (100.0, 2.0), "onnx-int8": (400.0, 6.0)}
    reports = {
        report_name(backend): {"sentences_per_second": rate, "milliseconds_alone": wait}
        for backend, (rate, wait) in measured.items()
    }
    files = {GRAPHS[backend]: None for backend in measured}
    manifest: Any = SimpleNamespace(files=files, read_json=reports.__getitem__)
    assert runnable_backends(manifest)[0] == "onnx-int8"
    assert runnable_backends(manifest, alone=True)[0] == "onnx"
    # Reports of an older version tell the speed in batches alone, by which they are then ranked.
    for report in reports.values():
        del report["milliseconds_alone"]
    assert runnable_backends(manifest, alone=True)[0] == "onnx-int8"


@pytest.mark.parametrize(
    ("backend", "named"),
    [("onnx", "manyheads.onnx"), ("onnx-int8", "manyheads_int8.onnx"), ("torch", "torch")],
)
def test_the_user_overrides_the_choice(best: Path, backend: str, named: str) -> None:
    assert named in load_model(best, Runtime(backend, threads=1)).predictor.backend.name


def test_a_device_for_pytorch_asks_for_pytorch(best: Path) -> None:
    with pytest.raises(RequestError, match="'onnx' does not run on device 'cuda'"):
        load_model(best, Runtime("onnx", "cuda"))


def test_unknown_and_missing_backends_are_refused(best: Path) -> None:
    with pytest.raises(RequestError, match=r"no backend 'onxx'.*did you mean \"onnx\""):
        load_model(best, Runtime("onxx"))
    checkpoint = next(best.parent.glob("*.pt"))
    with pytest.raises(ModelError, match="a checkpoint has no graph for backend 'onnx'"):
        load_model(checkpoint, Runtime("onnx"))


def test_the_requested_number_of_threads_is_used(best: Path) -> None:
    backend = OnnxBackend((best / GRAPHS["onnx"]).read_bytes(), name="graph", threads=1)
    assert backend.threads == 1
    options = backend._session.get_session_options()
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    one = open_backend("onnx", {GRAPHS["onnx"]: (best / GRAPHS["onnx"]).read_bytes()}, threads=1)
    assert isinstance(one, OnnxBackend)
    several = open_backend(
        "onnx", {GRAPHS["onnx"]: (best / GRAPHS["onnx"]).read_bytes()}, threads=3
    )
    assert isinstance(several, ParallelBackend)
    assert several.count == 3
    assert isinstance(several.single, OnnxBackend)
    assert several.single.threads == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_tokenizer_takes_no_more_threads_than_that(best: Path) -> None:
    script = """
import os
import manyheads, onnxruntime
def count():
    return len(os.listdir("/proc/self/task"))
os.environ.pop("TOKENIZERS_PARALLELISM", None)
before = count()
model = manyheads.load(sys.argv[1], backend="onnx", threads=3).predictor
loaded = count()
model.tokenizer.encode_batch(["John lives in Paris"] * 100)
print(loaded - before, count() - loaded, "RAYON_NUM_THREADS" in os.environ)
"""
    done = in_bare_environment(script, str(best))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "3 0 False\n"


def test_openvino_predicts_the_same(best: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    import shutil

    folder = shutil.copytree(best, tmp_path / "best")
    result = export_model(folder, formats=("openvino",), threads=2, limit=100)
    assert [report.backend for report in result.kept] == ["openvino", "openvino-int8"]
    assert not any(result.kept[1].batch_mates.changed.values())
    expected = load_model(folder, Runtime("torch", threads=1)).predictor.predict(TEXTS, embed=True)
    for threads in (1, 2):
        exact = load_model(folder, Runtime("openvino", threads=threads)).predictor
        assert_same(as_json(exact.predict(TEXTS, embed=True)), as_json(expected), 1e-3)
        small = load_model(folder, Runtime("openvino-int8", threads=threads)).predictor
        assert small.backend.name == "openvino-int8 (model_int8.xml)"
        found = small.predict(TEXTS, embed=True)
        alone = [small.predict([text], embed=True)[0] for text in TEXTS]
        assert_same(as_json(found), as_json(alone), 1e-4)
        for one, other in zip(found, expected, strict=True):
            if one.embedding is not None and other.embedding is not None:
                assert float(one.embedding @ other.embedding) > 0.98
    # OpenVINO's cores meddle with the stack on which handlers of signals run, also when they end.
    del exact, small, result
    gc.collect()
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM


def test_int8_stays_close_whatever_the_batch(best: Path) -> None:
    predictor = load_model(best, Runtime("onnx-int8", threads=1)).predictor
    exact = load_model(best, Runtime("onnx", threads=1)).predictor.predict(TEXTS, embed=True)
    for texts, expected in ((TEXTS, exact), (TEXTS[:1], exact[:1])):
        for one, other in zip(predictor.predict(texts, embed=True), expected, strict=True):
            if one.embedding is not None and other.embedding is not None:
                assert float(one.embedding @ other.embedding) > 0.99
    assert not np.array_equal(
        predictor.predict(TEXTS[:1], embed=True)[0].embedding, exact[0].embedding
    )


# ------------------------------------------------------------------------------- whole files


def echo(texts: Iterable[Text]) -> Iterator[Prediction]:
    for text in texts:
        yield Prediction(str(text), {"length": ClassResult(str(len(text)), len(text), 1.0)})


def line(prediction: Prediction, first: bool) -> bytes:
    return f"{'' if first else chr(10)}{prediction.text}".encode()


class Killed(BaseException):
    """The process ends here."""


def killed_after(count: int, seen: list[str]) -> Any:
    def predict(texts: Iterable[Text]) -> Iterator[Prediction]:
        for number, prediction in enumerate(echo(texts)):
            if number == count:
                raise Killed
            seen.append(prediction.text)
            yield prediction

    return predict


LINES = [f"sentence {number} é" for number in range(20)]
RUN = {"model": "m", "input": "file", "input_stamp": [1, 2], "options": {}}


@pytest.mark.parametrize("stops", [[0], [7], [3, 0, 5], [19], [20]])
def test_a_killed_run_continues_and_repeats_nothing(tmp_path: Path, stops: list[int]) -> None:
    output = tmp_path / "out.txt"
    output.write_text("old")
    seen: list[str] = []
    for stop in stops:
        killed = stop < 20
        if killed:
            with pytest.raises(Killed):
                write_predictions(
                    output, LINES, killed_after(stop, seen), line, run=RUN, resume=True,
                    sync_seconds=0,
                )  # fmt: skip
            assert output.read_text() == "old"
            # What was written after the last record does not count.
            with partial_path(output).open("ab") as file:
                file.write(b"half a li")
    done: list[int | None] = []
    count = write_predictions(
        output, iter(LINES), killed_after(99, seen), line, run=RUN, resume=True,
        started=done.append,
    )  # fmt: skip
    assert count == 20
    assert output.read_text() == "\n".join(LINES)
    assert seen == LINES
    assert done == [sum(stops) if killed else None]
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


@pytest.mark.parametrize("stop", range(7))
def test_texts_that_are_left_out_count_when_a_run_continues(tmp_path: Path, stop: int) -> None:
    output, lines = tmp_path / "out.txt", ["", "", "a", "", "b", ""]

    def without_empty(texts: Iterable[Text], most: int) -> Iterator[Prediction | None]:
        for number, prediction in enumerate(echo(texts)):
            if number == most:
                raise Killed
            yield prediction if prediction.text else None

    with suppress(Killed):
        write_predictions(
            output, lines, lambda t: without_empty(t, stop), line, run=RUN, sync_seconds=0
        )
    count = write_predictions(
        output, lines, lambda t: without_empty(t, 9), line, run=RUN, resume=True
    )
    assert (count, output.read_text()) == (6, "a\nb")


def test_without_resume_a_stopped_run_is_replaced(tmp_path: Path) -> None:
    output = tmp_path / "out.txt"
    with pytest.raises(Killed):
        write_predictions(output, LINES, killed_after(5, []), line, run=RUN, sync_seconds=0)
    assert write_predictions(output, LINES[:2], echo, line, run=RUN) == 2
    assert output.read_text() == "\n".join(LINES[:2])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "other"}, "the stopped run had another model"),
        ({"input": "other"}, "the stopped run had another input"),
        ({"input_stamp": [1, 3]}, "an input that has changed since"),
        ({"options": {"embed": True}}, "the stopped run had other options"),
    ],
)
def test_only_the_same_run_is_continued(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    output = tmp_path / "out.txt"
    with pytest.raises(Killed):
        write_predictions(output, LINES, killed_after(5, []), line, run=RUN, sync_seconds=0)
    with pytest.raises(RequestError, match=message):
        write_predictions(output, LINES, echo, line, run={**RUN, **changed}, resume=True)
    assert partial_path(output).exists()


def test_a_run_killed_between_its_last_steps_is_complete(tmp_path: Path) -> None:
    output = tmp_path / "out.txt"
    write_predictions(output, LINES, echo, line, run=RUN)
    record = partial_path(output).with_name("out.txt.partial.json")
    values = {"texts": 20, "bytes": output.stat().st_size, "complete": True, "run": RUN}
    record.write_text(json.dumps(values))
    seen: list[str] = []
    count = write_predictions(output, LINES, killed_after(0, seen), line, run=RUN, resume=True)
    assert count == 20
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("out.txt.partial.json", "file", "does not record the progress of a run; expected a file"),
        ("out.txt.partial.json", "link", "does not record the progress of a run"),
        ("out.txt.partial.json", "pipe", "it is a device or a pipe"),
        ("out.txt.partial", "file", "no stopped run left it.*Remove it, or choose another"),
        ("out.txt.partial", "link", "no stopped run left it"),
        ("out.txt.partial", "pipe", "no stopped run left it"),
    ],
)
def test_files_of_other_programs_are_not_touched(
    tmp_path: Path, resume: bool, name: str, kind: str, message: str
) -> None:
    theirs = tmp_path / name
    (tmp_path / "precious").write_text('{"texts": "many"}')
    if kind == "file":
        theirs.write_text('{"texts": "many"}')
    elif kind == "link":
        theirs.symlink_to("precious")
    else:
        os.mkfifo(theirs)
    with pytest.raises(ManyheadsError, match=message):
        write_predictions(tmp_path / "out.txt", LINES, echo, line, run=RUN, resume=resume)
    assert theirs.is_symlink() == (kind == "link")
    assert theirs.is_fifo() == (kind == "pipe")
    assert kind == "pipe" or theirs.read_text() == '{"texts": "many"}'
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "precious"])


def test_an_invalid_input_leaves_nothing_behind(tmp_path: Path) -> None:
    def faulty() -> Iterator[str]:
        yield "fine"
        raise DataError("not UTF-8", where="in.txt:2")

    with pytest.raises(DataError, match=r"in\.txt:2: not UTF-8"):
        write_predictions(tmp_path / "out.txt", faulty(), echo, line, run=RUN)
    assert not list(tmp_path.iterdir())


def test_two_processes_do_not_write_one_output(tmp_path: Path) -> None:
    output = tmp_path / "out.txt"

    def inner(texts: Iterable[Text]) -> Iterator[Prediction]:
        with pytest.raises(RequestError, match="another process is writing it"):
            write_predictions(output, LINES, echo, line, run=RUN)
        yield from echo(texts)

    assert write_predictions(output, LINES, inner, line, run=RUN) == 20


def meanwhile(monkeypatch: pytest.MonkeyPatch, place: str, action: Callable[[], None]) -> None:
    """Let something happen just before the first call of a function."""
    module, name = place.rsplit(".", 1)
    original = getattr(sys.modules[module], name)

    def first(*arguments: Any) -> Any:
        monkeypatch.setattr(place, original)
        action()
        return original(*arguments)

    monkeypatch.setattr(place, first)


@pytest.mark.parametrize("resume", [False, True])
def test_a_writer_that_waited_for_the_lock_leaves_the_finished_output_of_another_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    output = tmp_path / "out.txt"
    with pytest.raises(Killed):
        write_predictions(output, LINES, killed_after(5, []), line, run=RUN, sync_seconds=0)
    finished: list[str] = []

    def another() -> None:
        write_predictions(output, LINES, echo, line, run=RUN, resume=resume)

    def noted(done: int | None) -> None:
        assert done is None
        finished.append(output.read_text())

    meanwhile(monkeypatch, "fcntl.flock", another)
    count = write_predictions(output, LINES, echo, line, run=RUN, resume=resume, started=noted)
    assert count == 20
    assert [*finished, output.read_text()] == ["\n".join(LINES)] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_an_output_is_in_use_until_its_record_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.txt"

    refused: list[str] = []

    def another() -> None:
        with pytest.raises(RequestError) as caught:
            write_predictions(output, LINES[:3], echo, line, run=RUN, resume=True)
        refused.append(str(caught.value))

    # It is called when the output has its name.
    meanwhile(monkeypatch, "manyheads.inference.files.sync_folder", another)
    assert write_predictions(output, LINES, echo, line, run=RUN) == 20
    assert "out.txt: another process is writing it" in refused[0]
    assert output.read_text() == "\n".join(LINES)
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_an_output_is_written_where_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("fcntl.flock", fail)
    assert write_predictions(tmp_path / "out.txt", LINES, echo, line, run=RUN) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_an_input_that_changes_changes_the_run(best: Path, tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("one\n")
    before = describe_run(best, str(file), embed=False)
    assert before == describe_run(best, str(file), embed=False)
    assert before == json.loads(json.dumps(before))
    file.write_text("one\ntwo\n")
    assert describe_run(best, str(file), embed=False) != before
    assert describe_run(best, "datasets:x", embed=False)["input_stamp"] is None
    folder = tmp_path / "snips"
    folder.mkdir()
    (folder / "seq.in").write_text("one\n")
    before = describe_run(best, str(folder), embed=False)
    assert before == json.loads(json.dumps(describe_run(best, str(folder), embed=False)))
    (folder / "seq.in").write_text("two and more\n")
    assert describe_run(best, str(folder), embed=False) != before


# Stops for good before a batch as soon as the output has its first answers. They are recorded every
# few seconds, of which one passes here with each hundred answers.
HELD = """
import itertools, os, sys, time
from types import SimpleNamespace
from manyheads.cli import main
from manyheads.inference import files
from manyheads.inference.backends.onnx import OnnxBackend

partial, *arguments = sys.argv[1:]
run, moments = OnnxBackend.run, itertools.count(step=0.01)

def held(self, batch):
    if os.path.exists(partial) and os.path.getsize(partial):
        print("held", flush=True)
        time.sleep(600)
    return run(self, batch)

OnnxBackend.run = held
files.time = SimpleNamespace(monotonic=lambda: next(moments))
sys.exit(main(arguments))
"""


def test_the_command_continues_after_a_kill(best: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("".join(f"John lives in Paris {n}\n" for n in range(6_000)))
    arguments = [
        "predict", str(best), "--threads", "1", "--format", "jsonl", "--file", str(source),
        "--output", str(output),
    ]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", HELD, str(partial_path(output)), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        process.kill()
    assert not output.exists()
    command = [sys.executable, "-m", "manyheads", *arguments, "--resume"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d,?\d* texts already done; continuing after that", done.stderr)
    lines = output.read_text().splitlines()
    assert [json.loads(text)["text"] for text in lines] == source.read_text().splitlines()


def test_resume_without_files_is_refused(best: Path) -> None:
    from manyheads.cli import main

    assert main(["predict", str(best), "--resume", "John"]) == 2
