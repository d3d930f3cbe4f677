"""The targets of the fuzzer: each makes an input from random numbers and runs it.

A target raises `ManyheadsError` if the input is refused, as a bad one should be, and nothing if it
is accepted. `AssertionError` means that a property does not hold; any other exception is a finding
as well.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manyheads.cli import main
from manyheads.config import ALIASES, Config, TaskConfig, load_config
from manyheads.data.readers import Row, read_rows
from manyheads.data.records import RecordParser
from manyheads.errors import ManyheadsError
from manyheads.exporting import export_model
from manyheads.inference import GRAPHS, Runtime, load_model, report_name
from manyheads.inference.backends import pytorch
from manyheads.modeling import (
    CheckpointContents,
    Encoder,
    checkpoint,
    digest_of_tensor,
    digest_of_values,
    epoch_path,
    find_encoder,
    leaves,
    load_checkpoint,
    model_of_checkpoint,
    plain,
    pointer,
)
from manyheads.storage import LAYOUT, json_bytes, parse_json, seal, sha256
from manyheads.tasks import (
    LabelSet,
    Scheme,
    TagSet,
    Transitions,
    best_paths,
    marginals,
    scheme_of,
    spans_of,
    tags_of,
)
from manyheads.text import TextTokenizer, windows
from tag_sets import to_bio
from tiny import ROBERTA_SPECIALS, tiny_byte_bpe, tiny_tokenizer, tiny_unigram
from training_setup import encoder_folder, run

MAX_MESSAGE = 20_000
"""Characters of a message, whatever the input was."""

Draw = random.Random

# ------------------------------------------------------------------------------------ ingredients

WORDS = (
    "john", "lives", "in", "paris", "Don't", "e-mail", "3.5%", "U.S.", "re\u0301sume\u0301",
    "\u65e5\u672c\u8a9e", "\ud55c\uae00", "\u0645\u0631\u062d", "\u0e2a\u0e27\u0e31", "[SEP]",
    "</s>",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1eb\U0001f1f7", "##s", "_x_", "\u01c5",
    "\ufb01", "\u0130", "\u1e9e", "a\u200db", "\ufeff", "\u00ad",
)  # fmt: skip
SPACES = (" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2028", "", "\u200b", "\0")
RANGES = ((32, 127), (0, 32), (0x80, 0x250), (0x300, 0x370), (0x590, 0x700), (0x900, 0xE80),
          (0x2000, 0x2100), (0x3000, 0x3100), (0x4E00, 0x4E80), (0xAC00, 0xAC80), (0xD800, 0xE000),
          (0xFB00, 0x10000), (0x1F300, 0x1F700), (0, 0x110000))  # fmt: skip
FRAGMENTS = (b"[", b"]", b"{", b"}", b",", b":", b'"', b"'", b"\\", b"\n", b"\n\n", b"\t", b"\0",
             b"\r", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"null",
             b"NaN", b"1e999", b"9" * 5000, b"-", b"- ", b"&a ", b"*a", b"<<: ", b"!!python/object",
             b"O", b"B-PER", b"I-", b"#", b"-DOCSTART-", b"PAR1", b"PK\x03\x04", b"text,label\n",
             b"[" * 300, b'{"a":' * 300, b"%", b"|", b">", b"~", b"true")  # fmt: skip
VALUES = (None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, 10**30, 0.5, -1e308, float("inf"),
          float("nan"), "", " ", "O", "B-x", "I-x", "x", "\ud800", "\0", "x" * 3000, "../../x",
          "/etc/passwd", "a/b", [], {}, [[]], [None], {"": {}}, {"a": 1}, "mean", "1e-3", "cuda:99",
          {"auto_map": {"AutoModel": "x.Y"}}, [["O"]], "2e-5", "\n", "datasets:x")  # fmt: skip


def text(draw: Draw, longest: int = 12) -> str:
    """Return a text with words of many scripts and any characters, including lone surrogates."""
    parts = []
    for _ in range(draw.randrange(longest)):
        if draw.random() < 0.6:
            parts.append(draw.choice(WORDS))
        else:
            low, high = draw.choice(RANGES)
            parts += [chr(draw.randrange(low, high)) for _ in range(draw.randrange(1, 4))]
        parts.append(draw.choice(SPACES))
    return "".join(parts)


def garbled(draw: Draw, data: bytes) -> bytes:
    """Return bytes with a few random changes."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        place = draw.randrange(len(found) + 1)
        end = min(len(found), place + draw.choice((1, 2, 4, 16, 64)))
        match draw.randrange(6):
            case 0 if found:
                found[place % len(found)] ^= 1 << draw.randrange(8)
            case 1:
                del found[place:end]
            case 2:
                found[place:place] = draw.choice(FRAGMENTS)
            case 3:
                found[place:place] = found[place:end] * draw.randrange(1, 4)
            case 4:
                found[place:end] = draw.randbytes(end - place)
            case _ if draw.random() < 0.3:
                del found[place:]
    return bytes(found)


def value(draw: Draw, depth: int = 3) -> Any:
    """Return a JSON value, or something like it."""
    kind = draw.random()
    if depth == 0 or kind < 0.6:
        return draw.choice(VALUES)
    if kind < 0.8:
        return [value(draw, depth - 1) for _ in range(draw.randrange(4))]
    keys = ("start", "end", "label", "text", "kind", "")
    return {draw.choice(keys): value(draw, depth - 1) for _ in range(draw.randrange(3))}


def changed(draw: Draw, tree: Any) -> Any:
    """Return nested values with one of them replaced, removed, renamed or wrapped."""
    tree = json.loads(json.dumps(tree))
    parents = [tree]
    for parent in parents:
        inner = parent.values() if isinstance(parent, dict) else parent
        parents += [v for v in inner if isinstance(v, dict | list) and v]
        if len(parents) > 200:
            break
    parent = draw.choice(parents)
    key = draw.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    match draw.randrange(5):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[draw.choice(("x", "", "a.b", "\ud800", "../x"))] = parent.pop(key)
        case 2:
            parent[key] = [parent[key]]
        case 3 if isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
            parent[key] *= draw.choice((-1, 0, 2, 1000, 10**9))
        case _:
            parent[key] = value(draw)
    return tree


# -------------------------------------------------------------------------------------- the bench


@dataclass(frozen=True)
class Bench:
    """A working folder and the valid files to corrupt."""

    folder: Path
    model: Path
    """A whole model folder."""
    checkpoint: Path
    contents: CheckpointContents
    exported: Path
    """The same model with its graphs."""

    @classmethod
    def set_up(cls, folder: Path) -> Bench:
        """Train a tiny model of two tasks, whose files are then corrupted."""
        torch.set_num_threads(1)
        tasks = {
            "intent": {"kind": "classification"},
            "ner": {"kind": "tagging", "decoder": "crf", "neck": "bilstm", "neck_size": 4},
        }
        run(folder / "run", tasks=tasks)
        file = epoch_path(folder / "run" / "saved", 1)
        best = folder / "run" / "saved" / "best"
        exported = shutil.copytree(best, folder / "exported")
        export_model(exported, threads=1, limit=100)
        return cls(folder, best, file, load_checkpoint(file), exported)


# ------------------------------------------------------------------------------------ the targets


def tags(draw: Draw, bench: Bench) -> None:
    """Tag schemes: every notation of entities is read alike and converts back."""
    kinds = ("x", "y", "B-x", "-", "\u00e9")
    names = ["O", *(f"{p}-{k}" for p in "BIESLU" for k in kinds), "o", "B-", "-x", "", "noun"]
    given = [draw.choice(names) for _ in range(draw.randrange(9))]
    bio = to_bio(given)
    assert len(bio) == len(given)
    assert to_bio(bio) == bio
    before = "O"
    for tag in bio:
        assert tag == "O" or tag[0] == "B" or before[1:] == tag[1:], bio
        before = tag
    words, place = [], 0
    for _ in given:
        place += draw.randrange(3)
        words.append((place, place + draw.randrange(1, 4)))
        place = words[-1][1]
    spans = spans_of(given, words)
    assert tags_of(spans, words) == bio
    assert spans_of(bio, words) == spans
    shuffled = draw.sample(spans, len(spans))
    assert tags_of(shuffled, words) == bio
    assert to_bio(_iobes(bio)) == bio
    assert to_bio([{"E": "L", "S": "U"}.get(t[0], t[0]) + t[1:] for t in _iobes(bio)]) == bio
    scheme_of(given)


def _iobes(bio: Sequence[str]) -> list[str]:
    """BIO as IOBES: `E-` ends an entity, `S-` is one alone."""
    found = []
    for tag, following in zip(bio, [*bio, "O"][1:], strict=True):
        ends = following != "I" + tag[1:]
        prefix = {"B": "S", "I": "E", "O": "O"}[tag[0]] if ends else tag[0]
        found.append(prefix + tag[1:])
    return found


@cache
def _tokenizers() -> tuple[TextTokenizer, ...]:
    return (
        TextTokenizer(tiny_tokenizer()),
        TextTokenizer(tiny_tokenizer(lowercase=False)),
        TextTokenizer(tiny_byte_bpe(specials=ROBERTA_SPECIALS)),
        TextTokenizer(tiny_unigram(specials=ROBERTA_SPECIALS)),
    )


def alignment(draw: Draw, bench: Bench) -> None:
    """Spans and tokens for all of Unicode: words are ordered, disjoint and decided once."""
    tokenizer = draw.choice(_tokenizers())
    given = text(draw)
    encoding = tokenizer.encode(given)
    spans, first = encoding.word_spans.tolist(), encoding.word_starts.tolist()
    assert len(spans) == len(first)
    end = 0
    for start, stop in spans:
        assert end <= start < stop <= len(given), (given, spans)
        assert given[start:stop].strip() == given[start:stop], (given, spans)
        end = stop
    assert all(a < b for a, b in pairwise(first))
    last = len(encoding.ids) - encoding.suffix
    assert all(encoding.prefix <= token < last for token in first)
    if draw.random() < 0.3:
        length = encoding.prefix + encoding.suffix + draw.randrange(1, 8)
        parts = windows(encoding, length, draw.randrange(length - encoding.prefix))
        decided = [word for part in parts for word in range(*part.decides)]
        assert decided == list(range(len(spans))), (given, length)
        assert all(len(part.ids) <= length for part in parts)
    kinds = [draw.choice(("O", "B-x", "I-x", "B-y")) for _ in spans]
    borders = [(s, e) for s, e in spans]
    assert tags_of(spans_of(kinds, borders), borders) == to_bio(kinds)


TAG_SETS = (
    TagSet(("O", "B-x", "I-x")),
    TagSet(("I-y", "B-x", "O", "I-x", "B-y")),
    TagSet(("O",)),
    TagSet(("O", "noun", "I-verb"), Scheme.PLAIN),
)


@cache
def _paths(tag_set: TagSet, words: int) -> np.ndarray:
    """All the tag sequences that a scheme allows, [P, W]."""
    every = np.indices((len(tag_set),) * words).reshape(words, -1).T
    names = np.array(tag_set.names)[every]

    def allowed(row: Sequence[str]) -> bool:
        return all(
            tag_set.scheme is Scheme.PLAIN or tag[0] != "I" or before[1:] == tag[1:]
            for before, tag in zip(["O", *row], row, strict=False)
        )

    return every[[allowed(list(row)) for row in names]]


def crf(draw: Draw, bench: Bench) -> None:
    """Viterbi and forward-backward equal an enumeration of all tag sequences."""
    tag_set = draw.choice(TAG_SETS)
    size, words = len(tag_set), draw.randrange(1, 5)
    rng = np.random.default_rng(draw.getrandbits(64))
    scale = draw.choice((0.0, 1.0, 3.0, 20.0))
    start, end = rng.normal(0, 2, (2, size)).astype(np.float32)
    pairwise = rng.normal(0, 2, (size, size)).astype(np.float32)
    transitions = Transitions(start, end, pairwise)
    emissions = rng.normal(0, scale, (1, words, size)).astype(np.float32)
    lengths = np.array([words])
    paths = _paths(tag_set, words)
    scores = emissions[0].astype(np.float64)[np.arange(words), paths].sum(1)
    scores += start[paths[:, 0]] + end[paths[:, -1]]
    scores += pairwise[paths[:, :-1], paths[:, 1:]].sum(1)
    found = best_paths(emissions, lengths, tag_set.names, tag_set.scheme, transitions)[0]
    rows = (paths == found).all(1).nonzero()[0]
    assert len(rows) == 1, "not an allowed sequence"
    assert scores[rows[0]] >= scores.max() - 1e-3, "not the best sequence"
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    expected = np.zeros((words, size))
    for word in range(words):
        np.add.at(expected[word], paths[:, word], shares)
    marginal = marginals(emissions, lengths, tag_set.names, tag_set.scheme, transitions)[0]
    assert np.abs(marginal - expected).max() < 1e-4, "not the marginals"


CLASS, MANY = TaskConfig(kind="classification"), TaskConfig(kind="multilabel")
TASKS = {
    "c": CLASS, "m": MANY, "t": TaskConfig(kind="tagging"),
    "n": TaskConfig(kind="tagging", num_labels=5),
}  # fmt: skip
LABELS = {
    "c": LabelSet(("a", "b")), "m": LabelSet(("a", "b")), "t": TagSet.of_types("x"),
    "n": TagSet.of_types("12"),
}  # fmt: skip


def records(draw: Draw, bench: Bench) -> None:
    """Records: for any field values, a record has a text and spans inside it."""
    tokens: Any = text(draw, 5).split()
    count = len(tokens)
    fields: dict[str, Any] = {
        "text": " ".join(tokens) if draw.random() < 0.8 else value(draw),
        "label": draw.choice(("a", "b", 0, 1)),
        "ner": [draw.choice(("O", "B-x", "I-x")) for _ in range(count)],
    }
    if draw.random() < 0.3:
        start = draw.randrange(9)
        span = {"start": start, "end": start + draw.randrange(1, 4), "label": "x"}
        del fields["ner"]
        fields["entities"] = [span]
    if draw.random() < 0.5:
        fields["tokens"] = tokens
    for name in draw.sample(list(fields), draw.choice((0, 0, 1, 1, 2))):
        fields[name] = value(draw)
    if draw.random() < 0.5:
        fields.pop(draw.choice(list(fields)))
    row = Row("fuzz", 1, "line", fields)
    record = RecordParser(TASKS, LABELS if draw.random() < 0.5 else {})(row)
    assert record.text.strip()
    for task in ("t", "n"):
        for span in record.labels.get(task, ()):
            assert 0 <= span.start < span.end <= len(record.text)


OBJECTS = [
    {"tokens": ["John", "lives", "in", "Paris", "."], "ner": ["B-PER", "O", "O", "B-LOC", "O"]},
    {"text": "\u65e5\u672c é", "label": "b c", "entities": [{"start": 0, "end": 2, "label": "X"}]},
]
COLUMNS = "John\tB-PER\nlives\tO\n\n# a comment\nin\tO\nParis\tB-LOC\n"
SOUND: dict[str, bytes] = {
    "x.json": json.dumps(OBJECTS, indent=1).encode(),
    "y.json": "\n".join(json.dumps(o, ensure_ascii=False) for o in OBJECTS).encode(),
    "x.jsonl": "\r\n".join(json.dumps(o) for o in OBJECTS).encode(),
    "x.csv": b'text,label\n"a, ""b""",yes\nc d,no\n',
    "x.tsv": b"text\tlabel\na b\tyes\nc d\tno\n",
    "x.conll": COLUMNS.encode(),
    "x.iob2": COLUMNS.replace("\t", " ").encode(),
    "x.txt": b"\xef\xbb\xbf" + COLUMNS.encode(),
}


@cache
def _parquet() -> bytes:
    import io

    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return b"PAR1"
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": ["a b", "c"], "label": ["x", "y"]}), stream)
    return stream.getvalue()


def readers(draw: Draw, bench: Bench) -> None:
    """Readers: corrupted files of every format, and random bytes."""
    name = draw.choice([*SOUND, "x.parquet", "seq"])
    if name == "seq":
        path = bench.folder / "seq"
        path.mkdir(exist_ok=True)
        sound = {"seq.in": b"John lives\nhi\n", "seq.out": b"B-x O\nO\n", "label": b"a\nb\n"}
        spoiled = draw.choice(list(sound))
        for part, data in sound.items():
            (path / part).write_bytes(garbled(draw, data) if part == spoiled else data)
    else:
        path = bench.folder / name
        if draw.random() < 0.2:
            pieces = (draw.choice(FRAGMENTS) for _ in range(draw.randrange(12)))
            path.write_bytes(b"".join(pieces))
        else:
            path.write_bytes(garbled(draw, SOUND.get(name) or _parquet()))
    read(path, goes_on=draw.random() < 0.5)


def read(path: Path, *, goes_on: bool) -> None:
    """Read a whole file and parse its records."""
    errors: list[ManyheadsError] = []
    for row in read_rows(path, on_error=errors.append if goes_on else None):
        try:
            RecordParser(TASKS, {})(row)
        except ManyheadsError as error:
            errors.append(error)
    for error in errors:
        assert len(str(error)) < MAX_MESSAGE


def json_files(draw: Draw, bench: Bench) -> None:
    """Untrusted JSON."""
    parse_json(garbled(draw, json.dumps(OBJECTS).encode()), "fuzz")


YAML = b"""
model_name: encoder
train_file: data/train.json
valid_file: data/valid.json
max_length: 32
learning_rate: 2e-5
tasks:
  ner: {kind: tagging, decoder: crf, neck: bilstm, weight: 0.5}
  intent:
    kind: classification
    labels: [a, b]
best_metric: ner.f1
checkpoint_every: 5m
"""


def configuration(draw: Draw, bench: Bench) -> None:
    """Configuration files, and values from elsewhere."""
    if draw.random() < 0.5:
        path = bench.folder / "config.yaml"
        path.write_bytes(garbled(draw, YAML))
        load_config(path)
        return
    values: dict[str, Any] = {"train_file": "a.json", "valid_file": "b.json"}
    for _ in range(draw.randrange(1, 4)):
        name = draw.choice(
            (*Config.model_fields, *ALIASES, "tasks.ner.decoder", "tasks.x.kind", "lr", "x.y")
        )
        values[name] = value(draw)
    load_config(None, values)


def checkpoints(draw: Draw, bench: Bench) -> None:
    """Checkpoints with changed bytes, and with changed values under correct checksums."""
    path = bench.folder / "mtl_epoch1.pt"
    if draw.random() < 0.7:
        path.write_bytes(_with_spoiled_bytes(draw, bench.checkpoint))
        contents = load_checkpoint(path)
    else:
        tree = plain(checkpoint._document(bench.contents))
        part = draw.choice(["encoder", "tasks", "config", "epoch", "step", "format_version"])
        tree[part] = changed(draw, {"": tree[part]}).get("")
        if draw.random() < 0.3:
            name = draw.choice(list(tree["model"]))
            tree["model"][name] = draw.choice([torch.zeros(3), 1, "x", torch.zeros(2, 2).bool()])
        sums = {pointer(p): digest_of_tensor(t) for p, t in leaves(tree) if isinstance(t, Tensor)}
        manifest = {"values": digest_of_values(tree), "tensors": sums}
        torch.save({**tree, "manifest": manifest}, path)
        contents = load_checkpoint(path)
        model_of_checkpoint(contents, path)
    assert contents.model


def _with_spoiled_bytes(draw: Draw, path: Path) -> bytes:
    """Corrupt the start or the end, where the structure is, as often as the tensors."""
    data = path.read_bytes()
    if draw.random() < 0.5:
        place = draw.choice(
            (draw.randrange(len(data)), draw.randrange(len(data) - 20_000, len(data)))
        )
        return data[:place] + draw.randbytes(draw.randrange(1, 9)) + data[place + 8 :]
    match draw.randrange(3):
        case 0:
            return garbled(draw, data[:20_000]) + data[20_000:]
        case 1:
            return data[:-20_000] + garbled(draw, data[-20_000:])
    return garbled(draw, data)


def tokenizer_files(draw: Draw, bench: Bench) -> None:
    """Corrupted `tokenizer.json`."""
    data = (bench.model / LAYOUT.tokenizer).read_bytes()
    if draw.random() < 0.7:
        data = json.dumps(changed(draw, json.loads(data))).encode()
    else:
        data = garbled(draw, data)
    TextTokenizer.from_json(data.decode("utf-8", "replace")).encode("John lives in Paris")


def model_folders(draw: Draw, bench: Bench) -> None:
    """Model folders with corrupted files and correct checksums."""
    names = (LAYOUT.config, LAYOUT.tokenizer, LAYOUT.weights, LAYOUT.heads)
    folder = _spoiled_copy(draw, bench, bench.model, names)
    predictor, _ = pytorch.load(folder, Runtime(device="cpu", threads=1, batch_tokens=256))
    predictor.predict(SENTENCES)


def exported_folders(draw: Draw, bench: Bench) -> None:
    """The same of exported models, on the path without torch: graphs and reports too."""
    graph = draw.choice(("onnx", "onnx-int8"))
    names = (LAYOUT.config, LAYOUT.tokenizer, LAYOUT.heads, GRAPHS[graph], report_name(graph))
    folder = _spoiled_copy(draw, bench, bench.exported, names)
    backend = draw.choice(("auto", graph))
    predictor = load_model(folder, Runtime(backend, threads=1), warn=str).predictor
    predictor.predict(SENTENCES, embed=True)


def descriptions(draw: Draw, bench: Bench) -> None:
    """`info --json` of folders as above: done, or refused with status 2."""
    folder = _spoiled_copy(draw, bench, bench.exported, (LAYOUT.heads, report_name("onnx")))
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
        status = main(["info", str(folder), "--json", "-"])
    assert status in (0, 2), said.getvalue()
    assert len(said.getvalue()) < MAX_MESSAGE


def encoder_folders(draw: Draw, bench: Bench) -> None:
    """Encoder folders for training: configuration, tokenizer and pooling."""
    folder = bench.folder / "spoiled-encoder"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(encoder_folder(), folder)
    path = draw.choice(sorted(one for one in folder.rglob("*") if one.is_file()))
    data = path.read_bytes()
    if path.suffix == ".json" and draw.random() < 0.7:
        path.write_bytes(json.dumps(changed(draw, {"": json.loads(data)}).get("")).encode())
    else:
        path.write_bytes(garbled(draw, data[:3000]) + data[3000:])
    encoder = Encoder.from_source(find_encoder(str(folder), download=False))
    TextTokenizer.from_json(encoder.tokenizer_json).encode("John lives in Paris")


SENTENCES = ("John lives in Paris", "", "x " * 100)


def _spoiled_copy(draw: Draw, bench: Bench, model: Path, names: Sequence[str]) -> Path:
    """Copy a model folder and corrupt its manifest or one of its files; the checksums are right."""
    folder = bench.folder / "spoiled"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model, folder)
    path = folder / LAYOUT.manifest
    manifest = json.loads(path.read_bytes())
    if draw.random() < 0.4:
        kept = {name: manifest[name] for name in ("files", "format")}
        part = {name: manifest[name] for name in manifest if name not in ("metrics", "versions")}
        manifest = {**manifest, **changed(draw, part), **(kept if draw.random() < 0.8 else {})}
    else:
        name = draw.choice(names)
        data = (folder / name).read_bytes()
        if name.endswith(".json"):
            data = json.dumps(changed(draw, json.loads(data))).encode()
        else:
            # The structure of a file is at its beginning, or that of a graph at its end.
            cut = 3000 if draw.random() < 0.5 else max(0, len(data) - 3000)
            data = garbled(draw, data[:cut]) + data[cut:] if cut == 3000 else (
                data[:cut] + garbled(draw, data[cut:])
            )  # fmt: skip
        (folder / name).write_bytes(data)
        manifest["files"][name] = {"size": len(data), "sha256": sha256(data)}
    try:
        sealed = {**manifest, "sha256": seal(manifest)}
        path.write_bytes(json_bytes(sealed))
    except (ValueError, TypeError):
        path.write_text(json.dumps(manifest))
    return folder


TARGETS: dict[str, tuple[Callable[[Draw, Bench], None], int]] = {
    "tags": (tags, 280),
    "alignment": (alignment, 250),
    "crf": (crf, 150),
    "records": (records, 150),
    "readers": (readers, 116),
    "json_files": (json_files, 39),
    "configuration": (configuration, 8),
    "checkpoints": (checkpoints, 2),
    "tokenizer_files": (tokenizer_files, 2),
    "model_folders": (model_folders, 1),
    "exported_folders": (exported_folders, 2),
    "descriptions": (descriptions, 1),
    "encoder_folders": (encoder_folders, 1),
}
"""Each target with its cases out of a thousand: the cheap ones get most."""


def in_memory_folder() -> str | None:
    """Return a folder in memory, if there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
