"""`predict` and standard streams: pipes, terminals and missing streams."""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from command_line import Give, Run, python
from fake_predictor import FakePredictor
from manyheads.cli.conversation import EXAMPLES
from manyheads.storage import read_manifest
from training_setup import config, sentences, write_records

# Prediction in a process of its own, with a predictor that needs no model.
FAKE = f"""
    import sys
    sys.path.insert(0, {str(Path(__file__).parents[1] / "helpers")!r})
    import manyheads.inference
    from fake_predictor import FakePredictor
    from types import SimpleNamespace
    loaded = SimpleNamespace(predictor=FakePredictor())
    manyheads.inference.load_model = lambda *args, **options: loaded
    from manyheads.cli import main
    sys.exit(main(["predict", *sys.argv[1:]]))
"""
COMMAND = (sys.executable, "-c", textwrap.dedent(FAKE))


def test_lines_of_a_pipe_are_texts() -> None:
    done = python(FAKE, "--format", "jsonl", input="one two\nZoë\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["one two", "Zoë"]


def test_standard_input_can_be_named_like_a_file(
    run: Run, predictor: FakePredictor, stdin: Give
) -> None:
    stdin(b"one")
    assert run("predict", "--file", "-").out.startswith("In words: ")


def test_a_line_of_standard_input_that_is_no_text_is_named(
    run: Run, predictor: FakePredictor, stdin: Give
) -> None:
    stdin(b"one\n\n")
    result = run("predict")
    assert result.status == 2
    assert result.err.startswith("error: standard input:2: the text is empty; expected a sentence")


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (b"caf\xe9\n", []),
        (b'{"text": "caf\xe9"}\n', ["--file", "-", "--input-format", "jsonl"]),
        (b'[{"text": "caf\xe9"}]', ["--file", "-", "--input-format", "json"]),
    ],
)
def test_input_in_another_encoding_is_converted_on_the_way(
    run: Run, predictor: FakePredictor, stdin: Give, given: bytes, options: list[str]
) -> None:
    stdin(given)
    result = run("predict", *options)
    assert result.status == 2
    assert result.err.startswith("error: standard input:1: byte 0xe9 at offset ")
    assert result.err.endswith(
        "expected text in UTF-8. Convert the input, for example with: ... | iconv -f ENCODING -t "
        "utf-8 | manyheads predict ..., where ENCODING is the one that the file was saved in, "
        "usually cp1252 (Western Europe), cp1250 (Central Europe), cp1251 (Russian), cp1254 "
        "(Turkish), shift_jis (Japanese) or gb18030 (Chinese). With the right one, all of the text "
        "reads correctly.\n"
    )


@pytest.mark.parametrize("form", ["text", "jsonl"])
@pytest.mark.parametrize("given", [b"", None], ids=["empty", "/dev/null"])
def test_without_any_text_there_is_no_output(
    run: Run, predictor: FakePredictor, stdin: Give, given: bytes | None, form: str
) -> None:
    if given is not None:
        stdin(given)
    result = run("predict", "--format", form)
    assert (result.status, result.out, result.err) == (0, "", "")


def test_an_empty_pipe_has_no_output() -> None:
    done = python(FAKE, input="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("closing", ["<&-", "</dev/null"])
def test_without_standard_input_there_is_no_output(closing: str) -> None:
    done = subprocess.run(
        f"{shlex.join(COMMAND)} {closing}", shell=True, check=False, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


class Terminal:
    """The person's end of a terminal at which `manyheads predict` runs."""

    def __init__(self) -> None:
        self.descriptor, self.other_end = pytest.importorskip("pty").openpty()
        self.unread = b""

    def expect(self, text: bytes) -> bytes:
        """Read until some text appears, for ten seconds at most, and return all that was read."""
        while text not in self.unread:
            assert select.select([self.descriptor], [], [], 10)[0], self.unread
            self.unread += os.read(self.descriptor, 4096)
        seen, _, self.unread = self.unread.partition(text)
        return seen

    def type(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)


def test_at_a_terminal_examples_come_first_and_then_one_s_own_sentences() -> None:
    terminal = Terminal()
    talk = subprocess.Popen(
        COMMAND, stdin=terminal.other_end, stdout=terminal.other_end, stderr=subprocess.PIPE
    )
    os.close(terminal.other_end)
    try:
        seen = terminal.expect(b"Your own sentences (Ctrl-D ends):")
        for example in EXAMPLES:
            assert f"> {example}".encode() in seen
        for sentence in (b"one two three", b"four"):
            terminal.expect(b"> ")
            terminal.type(sentence + b"\n")
            terminal.expect(f"Classification: {len(sentence)}\r\n".encode())
        terminal.expect(b"> ")
        terminal.type(b"\x04")
        _, err = talk.communicate(timeout=3000)
    finally:
        talk.kill()
        talk.communicate()
        os.close(terminal.descriptor)
    assert (talk.returncode, err) == (0, b"")


def test_examples_that_go_to_a_file_are_followed_by_no_questions() -> None:
    terminal = Terminal()
    done = python(FAKE, stdin=terminal.other_end)
    os.close(terminal.other_end)
    os.close(terminal.descriptor)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("> ") == len(EXAMPLES)
    for example in EXAMPLES:
        words = f"In words: classification: {len(example)} 25 %; "
        assert f"> {example}\n{words}" in done.stdout
    assert done.stdout.replace("\n", "").isprintable()


def test_a_reader_that_closes_the_pipe_ends_the_command_quietly() -> None:
    script = FAKE.replace('["predict", ', '["predict", *["a b"] * 20_000, ')
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        assert writer.stderr is not None
        assert writer.stdout.readline().startswith("In words: classification: 3 ")
        writer.stdout.close()
        err = writer.stderr.read()
        assert writer.wait(timeout=300) == 141
    assert err == ""


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_reader_that_closes_the_pipe_stops_training_as_ctrl_c_does(
    tmp_path: Path, epochs: int
) -> None:
    for name, count in (("train", 14), ("valid", 60)):
        write_records(tmp_path / f"{name}.jsonl", sentences(count, count))
    made = config(tmp_path, tasks={"label": {"kind": "classification"}}, num_epochs=epochs)
    settings = json.dumps(made.model_dump(mode="json", exclude_unset=True))
    (tmp_path / "config.yaml").write_text(settings, encoding="utf-8")
    script = "import sys; from manyheads.cli import main; sys.exit(main(sys.argv[1:]))"
    reading, writing = os.pipe()
    os.close(reading)
    done = python(script, "train", str(tmp_path / "config.yaml"), stdout=writing)
    os.close(writing)
    assert done.returncode == 141, done.stderr
    continues = "mtl_epoch1.pt is saved. Continue with --resume." in done.stderr
    is_calibrated = "tasks" in read_manifest(Path(made.save_dir) / "best").calibration
    # All epochs are done: what follows them is done as well.
    assert (continues, is_calibrated) == ((False, True) if epochs == 1 else (True, False))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_reported() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = python(FAKE, "some text", stdout=full)
    assert done.returncode == 2
    assert done.stderr == (
        "error: standard output: cannot be written: the disk is full. Free some space, or write to "
        "another place.\n"
    )


def test_a_process_without_standard_streams_can_predict(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    script = shlex.join([*COMMAND, "a b", "--output", str(out)])
    done = subprocess.run(f"{script} <&- >&- 2>&-", shell=True, check=False)
    assert done.returncode == 0
    assert out.read_text(encoding="utf-8").startswith("In words: classification: 3 ")
