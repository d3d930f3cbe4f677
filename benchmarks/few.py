"""Accuracy with few labelled sentences: our defaults and the usual alternatives.

    python benchmarks/few.py --data DIR [--only SET ...] [--systems NAME ...] [--draws N]

DIR holds `snips`, `banking77`, `clinc150` and `wnut17`. Each draw takes some training sentences by
its seed; up to 300 others validate. `ours` is `manyheads train FILE --valid-file FILE` without any
setting. `held_out` is `manyheads train FILE`, which holds out a part of the sentences instead, and
`refitted` what `manyheads refit` makes of it; if `held_out` came before, its time is that of the
second training alone. `fitted` is the head before any training (a sentence is embedded once for all
draws, so the first draw has most of the time); `trainer` is transformers' Trainer with linear heads
at its best epoch scored; `setfit` is SetFit with the same encoder; `spacy` is spaCy's CNN. Test
sentences are scored once. Every result is a line of few.jsonl in `--out` and not computed again;
few.md and few.svg show what is there.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from accuracy import machine
from manyheads.api import Model, load, refit, train
from manyheads.config import TaskConfig
from manyheads.evaluation import mean_interval
from manyheads.modeling import EncoderShape, find_encoder, make_head, pool
from manyheads.modeling.heads import SentenceHead
from manyheads.tasks import LabelSet, Scheme, spans_of, tags_of
from manyheads.tasks.metrics import TaggedText, tagging_metrics
from manyheads.training import fit_head, name_texts

Floats = NDArray[np.float32]
Record = dict[str, Any]
Answers = list[Record]
"""For each sentence its predicted `label` and `ner`, where the system has one."""

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
VALIDATION = 300
TITLES = {
    "ours": "Manyheads", "held_out": "Manyheads, a part held out",
    "refitted": "the same, refitted", "fitted": "Manyheads, fitted only", "trainer": "Trainer",
    "setfit": "SetFit", "spacy": "spaCy's CNN",
}  # fmt: skip

_VECTORS: dict[str, Floats] = {}
"""The embeddings of sentences by the untouched encoder."""


@dataclass(frozen=True)
class Split:
    """The sentences of one draw."""

    train: list[Record]
    valid: list[Record]
    test: list[Record]


def snips(folder: Path, part: str) -> list[Record]:
    """Read sentences with an intent and slots."""
    names = ("seq.in", "seq.out", "label")
    lines = [(folder / "snips" / part / n).read_text(encoding="utf-8").splitlines() for n in names]
    return [
        {"tokens": text.split(), "ner": tags.split(), "label": label.strip()}
        for text, tags, label in zip(*lines, strict=True)
    ]


def banking77(folder: Path, part: str) -> list[Record]:
    """Read sentences with an intent; there is no `dev`."""
    if part == "dev":
        return []
    with (folder / "banking77" / f"{part}.csv").open(newline="", encoding="utf-8") as file:
        return [{"text": row["text"], "label": row["category"]} for row in csv.DictReader(file)]


def clinc150(folder: Path, part: str) -> list[Record]:
    """Read the in-scope sentences with an intent."""
    whole = json.loads((folder / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    return [{"text": t, "label": i} for t, i in whole["val" if part == "dev" else part]]


def wnut17(folder: Path, part: str) -> list[Record]:
    """Read sentences with entities."""
    names = {"train": "wnut17train.conll", "dev": "emerging.dev.conll"}
    text = (folder / "wnut17" / names.get(part, "emerging.test.annotated")).read_text("utf-8")
    found: list[Record] = []
    fresh = True
    for line in text.splitlines():
        if not line.strip():
            fresh = True
            continue
        if fresh:
            found.append({"tokens": [], "ner": []})
            fresh = False
        token, tag = line.split("\t")[:2]
        found[-1]["tokens"].append(token)
        found[-1]["ner"].append(tag)
    return found


READERS: Mapping[str, Callable[[Path, str], list[Record]]] = {
    "snips": snips, "banking77": banking77, "clinc150": clinc150, "wnut17": wnut17
}  # fmt: skip
SETS = ("snips-600", "banking77-5", "banking77-10", "clinc150-5", "clinc150-10", "wnut17-300")


def draw(folder: Path, name: str, seed: int) -> Split:
    """Draw sentences of a set: so many in all, or of each class if the labels are classes alone."""
    base, count = name.split("-")
    read, most = READERS[base], int(count)
    records = read(folder, "train")
    random.Random(seed).shuffle(records)
    if base in ("snips", "wnut17"):
        chosen, others = records[:most], records[most:]
    else:
        seen: Counter[str] = Counter()
        chosen, others = [], []
        for record in records:
            (chosen if seen[record["label"]] < most else others).append(record)
            seen[record["label"]] += 1
    valid = read(folder, "dev") or others
    random.Random(seed).shuffle(valid)
    return Split(chosen, valid[:VALIDATION], read(folder, "test"))


def words_of(record: Record) -> list[str]:
    """Return a sentence's words."""
    return list(record.get("tokens") or record["text"].split())


def text_of(record: Record) -> str:
    """Return a sentence's text."""
    return str(record.get("text") or " ".join(record["tokens"]))


def ours(split: Split, seed: int) -> Answers:
    """Train with our defaults."""
    with tempfile.TemporaryDirectory(prefix="few-") as folder:
        model = train(
            split.train, valid=split.valid, save_dir=f"{folder}/run", seed=seed, threads=1,
            progress=False,
        )  # fmt: skip
        return answers_of(model, split.test)


def held_out(split: Split, seed: int) -> Answers:
    """Train with our defaults, which hold out a part of the sentences."""
    return answers_of(load(held_out_run(json.dumps(split.train), seed).name), split.test)


def refitted(split: Split, seed: int) -> Answers:
    """Train as `held_out` does, and once more on all sentences."""
    run = held_out_run(json.dumps(split.train), seed).name
    with tempfile.TemporaryDirectory(prefix="few-") as folder:
        return answers_of(refit(run, save_dir=f"{folder}/run", progress=False), split.test)


@lru_cache(maxsize=1)
def held_out_run(records: str, seed: int) -> tempfile.TemporaryDirectory[str]:
    """Train with our defaults on records, as JSON, and return the folder of the run."""
    folder = tempfile.TemporaryDirectory(prefix="few-")
    train(json.loads(records), save_dir=folder.name, seed=seed, threads=1, progress=False)
    return folder


def answers_of(model: Model, records: Sequence[Record]) -> Answers:
    """Return a model's answers."""
    answers: Answers = []
    for result in model.predict([r.get("tokens") or r["text"] for r in records]):
        answer: Record = {}
        for one in result.results.values():
            if hasattr(one, "tokens"):
                answer["ner"] = [token.tag for token in one.tokens]
            else:
                answer["label"] = one.label
        answers.append(answer)
    return answers


def embedded(texts: Sequence[str]) -> Tensor:
    """Return the pretrained embeddings and middle layer [N, 2 H] of texts, each computed once."""
    new = sorted({*texts} - _VECTORS.keys(), key=len)
    if new:
        hub: Any = import_module("transformers")
        folder = find_encoder(MODEL).folder
        encoder = hub.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = hub.AutoTokenizer.from_pretrained(folder)
        for start in range(0, len(new), 64):
            part = new[start : start + 64]
            inputs = tokenizer(
                part, padding=True, truncation=True, max_length=128, return_tensors="pt"
            )
            with torch.inference_mode():
                states = encoder(**inputs, output_hidden_states=True).hidden_states
            pooled = [
                functional.normalize(pool(state, inputs["attention_mask"], "mean"), dim=1)
                for state in (states[-1], states[len(states) // 2])
            ]
            _VECTORS.update(zip(part, torch.cat(pooled, dim=1).numpy(), strict=True))
    return torch.from_numpy(np.stack([_VECTORS[text] for text in texts]))


def fitted(split: Split, seed: int) -> Answers:
    """Fit the default head to the pretrained encoder's vectors, as at the start of training."""
    labels = LabelSet(tuple(sorted({r["label"] for r in split.train})))
    names = name_texts(labels.names)
    vectors = embedded([*map(text_of, split.train), *names.values()])
    targets = [labels.index(name) for name in (*(r["label"] for r in split.train), *names)]
    task = TaskConfig(
        kind="classification", start="fitted", pooling=("embedding", "middle"), label_smoothing=0.1
    )
    head = make_head(task, labels, EncoderShape(vectors.shape[1] // 2, 1)).eval()
    assert isinstance(head, SentenceHead)
    fit_head(head, vectors, torch.tensor(targets), len(names))
    logits = head.scorer.layers(embedded([text_of(r) for r in split.test]))
    return [{"label": labels.names[int(best)]} for best in logits.argmax(dim=1)]


def trainer(split: Split, seed: int) -> Answers:
    """Train a linear layer on each word and sentence vector with transformers' Trainer."""
    from few_rivals import train_plainly

    return train_plainly(find_encoder(MODEL).folder, split.train, split.valid, split.test, seed)


def setfit(split: Split, seed: int) -> Answers:
    """Train SetFit: contrastive pairs, then logistic regression."""
    from few_rivals import train_setfit

    return train_setfit(find_encoder(MODEL).root, split.train, split.test, seed)


def spacy(split: Split, seed: int) -> Answers:
    """Train spaCy's CNN for entities."""
    from few_rivals import train_spacy

    return train_spacy(split.train, split.valid, split.test, seed)


SYSTEMS: Mapping[str, Callable[[Split, int], Answers]] = {
    "ours": ours, "held_out": held_out, "refitted": refitted, "fitted": fitted,
    "trainer": trainer, "setfit": setfit, "spacy": spacy,
}  # fmt: skip


def fits(system: str, name: str) -> bool:
    """Return whether a system has an answer for a set's labels."""
    classes = ("banking77", "clinc150")
    sets = {"fitted": classes, "setfit": classes, "spacy": ("wnut17",)}
    return name.split("-")[0] in sets.get(system, READERS)


def scores(gold: Sequence[Record], answers: Answers) -> dict[str, float]:
    """Score answers: classes by accuracy, entities by strict F1, sentences with both as a whole."""
    found: dict[str, float] = {}
    pairs = list(zip(gold, answers, strict=True))
    if "label" in gold[0]:
        found["accuracy"] = sum(g["label"] == a["label"] for g, a in pairs) / len(pairs)
    if "ner" in gold[0]:
        theirs, found_tags = ([tagged_text(r["ner"]) for r in side] for side in (gold, answers))
        found["f1"] = tagging_metrics(theirs, found_tags, Scheme.BIO)["f1"]
        if "label" in gold[0]:
            both = zip(pairs, theirs, found_tags, strict=True)
            right = [g["label"] == a["label"] and one == other for (g, a), one, other in both]
            found["frame"] = sum(right) / len(right)
    return found


def tagged_text(tags: Sequence[str]) -> TaggedText:
    """Return the entities of BIO tags, each word as one character."""
    places = [(i, i + 1) for i in range(len(tags))]
    spans = spans_of(list(tags), places, Scheme.BIO)
    return TaggedText(tuple(tags_of(spans, places, Scheme.BIO)), frozenset(spans))


def run(arguments: argparse.Namespace, path: Path) -> None:
    """Compute the missing results, draw by draw."""
    wanted = [
        (name, system, seed)
        for seed in range(1, arguments.draws + 1)
        for name in arguments.only
        for system in arguments.systems
        if fits(system, name)
    ]
    done = {(r["set"], r["system"], r["draw"]) for r in results(path)}
    for name, system, seed in wanted:
        if (name, system, seed) in done:
            continue
        split = draw(arguments.data, name, seed)
        began, clock = time.process_time(), time.perf_counter()
        answers = SYSTEMS[system](split, seed)
        line = {
            "set": name, "system": system, "draw": seed, "machine": machine(),
            "processor_seconds": round(time.process_time() - began, 1),
            "seconds": round(time.perf_counter() - clock, 1),
            "scores": scores(split.test, answers),
        }  # fmt: skip
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def results(path: Path) -> list[dict[str, Any]]:
    """Read the results so far."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Write a Markdown table: means with 95 % intervals over the draws."""
    rows = ["| data | system | draws | accuracy | F1 | frame | processor-seconds |"]
    rows.append("|---|---|---:|---:|---:|---:|---:|")
    for name in dict.fromkeys(r["set"] for r in found):
        for system in SYSTEMS:
            runs = [r for r in found if (r["set"], r["system"]) == (name, system)]
            if not runs:
                continue
            cells = [shown([r["scores"].get(m) for r in runs]) for m in ("accuracy", "f1", "frame")]
            seconds = sum(r["processor_seconds"] for r in runs) / len(runs)
            rows.append(
                f"| {name} | {TITLES[system]} | {len(runs)} | {' | '.join(cells)} | {seconds:.0f} |"
            )
    return "\n".join(rows)


def shown(values: Sequence[float | None]) -> str:
    """Return the mean in per cent, with the half width of its interval."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return ""
    mean = mean_interval(known)
    spread = "" if mean.high is None else f" ± {mean.high - mean.mean:.1f}"
    return f"{mean.mean:.1f}{spread}"


def picture(found: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw accuracy by sentences a class, a line for each set and system."""
    try:
        matplotlib: Any = import_module("matplotlib.figure")
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    points: dict[tuple[str, str], dict[int, list[float]]] = {}
    for r in found:
        base, count = r["set"].split("-")
        metric = "accuracy" if base in ("banking77", "clinc150") else "f1"
        line = points.setdefault((base, r["system"]), {})
        line.setdefault(int(count), []).append(100 * r["scores"][metric])
    panels = [
        (bases, unit, metric)
        for bases, unit, metric in (
            (("banking77", "clinc150"), "sentences a class", "accuracy, %"),
            (("snips", "wnut17"), "sentences", "F1, %"),
        )
        if any(base in bases for base, _ in points)
    ]
    figure = matplotlib.Figure(figsize=(7, 4), layout="constrained")
    for place, (bases, unit, metric) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), place)
        lines = {key: line for key, line in sorted(points.items()) if key[0] in bases}
        for (base, system), line in lines.items():
            xs = sorted(line)
            means = [sum(line[x]) / len(line[x]) for x in xs]
            form = {"ours": "o-", "fitted": ".:"}.get(system, "s--")
            axes.plot(xs, means, form, label=f"{base}, {TITLES[system]}")
        axes.set_xscale("log")
        ticks = sorted({x for line in lines.values() for x in line})
        axes.set_xticks(ticks, [str(x) for x in ticks])
        axes.minorticks_off()
        axes.set_xlabel(unit)
        axes.set_ylabel(metric)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--only", nargs="+", default=list(SETS), metavar="SET",
                        help="such as snips-600 or banking77-10")  # fmt: skip
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--draws", type=int, default=5)
    chosen = parser.parse_args(arguments)
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / "few.jsonl"
    run(chosen, path)
    found = results(path)
    (chosen.out / "few.md").write_text(table(found) + "\n", encoding="utf-8")
    picture(found, chosen.out / "few.svg")
    print(table(found))


if __name__ == "__main__":
    main()
