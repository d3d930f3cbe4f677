"""Small files in the forms of the public data sets."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training_setup import encoder_folder, sentences


def snips_folder(folder: Path) -> Path:
    """Sentences in the form of the public data set."""
    for part, seed in (("train", 1), ("dev", 2)):
        records = sentences(12, seed)
        (folder / part).mkdir(parents=True)
        for name, lines in (
            ("seq.in", [" ".join(record["tokens"]) for record in records]),
            ("seq.out", [" ".join(record["ner"]) for record in records]),
            ("label", [record["label"] for record in records]),
        ):
            (folder / part / name).write_text("".join(f"{line}\n" for line in lines))
    return folder


def write_csv(path: Path, records: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [(" ".join(record["tokens"]), record["label"]) for record in records]
        csv.writer(file).writerows([("text", "category"), *rows])


def write_conll(path: Path, records: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = ["\n".join(map("\t".join, zip(r["tokens"], r["ner"], strict=True))) for r in records]
    path.write_text("\n\t\n".join(blocks) + "\n\n", encoding="utf-8")


def data_sets(folder: Path) -> Path:
    """Small files under the names of the public data."""
    for part, seed in (("train", 1), ("dev", 2), ("test", 3)):
        records = sentences(20, seed)
        (folder / "snips" / part).mkdir(parents=True)
        for name, lines in (
            ("seq.in", [" ".join(record["tokens"]) for record in records]),
            ("seq.out", [" ".join(record["ner"]) for record in records]),
            ("label", [record["label"] for record in records]),
        ):
            (folder / "snips" / part / name).write_text("".join(f"{line}\n" for line in lines))
    write_csv(folder / "banking77" / "train.csv", sentences(40, 4))
    write_csv(folder / "banking77" / "test.csv", sentences(10, 5))
    for name, seed in (
        ("wnut17train.conll", 6), ("emerging.dev.conll", 7), ("emerging.test.annotated", 8),
    ):  # fmt: skip
        write_conll(folder / "wnut17" / name, sentences(12, seed))
    return folder


def tiny_study(folder: Path, *more: str) -> list[str]:
    """The arguments of a study of many runs, each on tiny data."""
    return [
        "--data", str(folder / "data"), "--out", str(folder / "out"), "--seeds", "1",
        "--threads", "1", "--set", f"model_name={encoder_folder()}", "--set", "max_length=32",
        "--set", "batch_size=8", "--set", "precision=float32", "--set", "log_every=1", *more,
    ]  # fmt: skip
