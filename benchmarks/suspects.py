"""Find wrong labels that were planted: SNIPS intents and slots, WNUT 2017 entities; and cleanlab.

    python benchmarks/suspects.py --data DIR [--only snips snips-slots wnut17] [--seeds N ...]

DIR holds `snips/train` and `wnut17/wnut17train.conll`. Slots are looked for in every fourth
sentence of SNIPS. 5 % of all labels are made wrong: at random, or by confusion (another label as
often as a model confuses the two). Of entities a quarter each get another type, a border one token
off, is removed, or is added to a token without one. The result is the share of planted ones among
the first k suspects, k the number planted; a suspected entity counts if it overlaps a planted one
in its record. cleanlab ranks by the same out-of-fold probabilities, tokens by self-confidence,
classes by self-confidence and by normalised margin: of the heads' probabilities, and of those with
the labels of the nearest sentences, by which ours are ranked. Each seed is another draw of planted
labels; prints the means with 95 % intervals of Student's t, and the processor seconds of the
encoder, which reads the records once for all seeds, and of a search. Where cleanlab is not
installed, it is left out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from manyheads.config import load_config
from manyheads.data.records import Record, discover_labels, read_records
from manyheads.evaluation import mean_interval
from manyheads.tasks import LabelSet, Span, TagSet
from manyheads.training.data import dataset
from manyheads.training.suspects import FrozenHeads, folds, search

SHARE = 0.05
SETS: Mapping[str, tuple[str, dict[str, Any], int]] = {
    "snips": ("snips/train", {"intent": {"kind": "classification", "field": "label"}}, 1),
    "snips-slots": ("snips/train", {"slots": {"kind": "tagging"}}, 4),
    "wnut17": ("wnut17/wnut17train.conll", {"ner": {"kind": "tagging"}}, 1),
}
"""File, task, and the step from one record that is read to the next."""
HOWS = ("random", "confusion")
Place = tuple[int, int]


def main() -> None:
    """Plant, search and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--how", nargs="+", choices=HOWS, default=list(HOWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("suspects.json"))
    arguments = parser.parse_args()
    if find_spec("cleanlab") is None:
        print("cleanlab is not installed: left out")
    results = []
    for name in arguments.only:
        path, tasks, step = SETS[name]
        changes = dict(one.split("=", 1) for one in arguments.set)
        config = load_config(None, {"tasks": tasks, "threads": arguments.threads, **changes})
        [task] = config.tasks
        source = str(arguments.data / path)
        label_sets = discover_labels(config.tasks, [source])
        records = list(read_records(source, config.tasks, label_sets))[::step]
        heads = FrozenHeads(records, config.tasks, label_sets, config, keeps_layers=True)
        began = time.process_time()
        heads.sentences()
        print(f"{name}: encoder {time.process_time() - began:.0f} s", flush=True)
        for how in arguments.how:
            confusion = None
            if how == "confusion":
                clean = search.out_of_fold(heads, records, folds.Folding(folds=3, repeats=1))
                clean = search.with_neighbours(clean, heads)
                confusion = confusions(records, task, label_sets[task], clean)
            draws = []
            for seed in arguments.seeds:
                draws.append(measure(heads, records, task, label_sets[task], confusion, seed))
                print(json.dumps({"data": name, "how": how, "seed": seed, **draws[-1]}), flush=True)
            results.append({"data": name, "how": how, "draws": draws})
            summary(name, how, draws)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")


def summary(name: str, how: str, draws: Sequence[Mapping[str, Any]]) -> None:
    """Print the mean of each ranking, and of ours over each of cleanlab's."""
    systems = [key for key in draws[0] if key == "ours" or key.startswith("cleanlab")]
    for system in systems:
        own = [draw[system] for draw in draws]
        line = f"{name}, {how}: {system} {_interval(own)}"
        if system != "ours":
            gains = [draw["ours"] - one for draw, one in zip(draws, own, strict=True)]
            line += f"; ours {_interval(gains)} more"
        print(line, flush=True)


def _interval(values: Sequence[float]) -> str:
    found = mean_interval(values)
    between = "" if found.low is None else f" ({found.low:.3f} to {found.high:.3f})"
    return f"{found.mean:.3f}{between}"


def measure(
    heads: FrozenHeads,
    records: Sequence[Record],
    task: str,
    labels: LabelSet,
    confusion: Any,
    seed: int,
) -> dict[str, Any]:
    """Plant wrong labels, and return how many of the first suspects they are."""
    generator = np.random.default_rng(seed)
    plant = plant_entities if isinstance(labels, TagSet) else plant_classes
    changed, planted = plant(records, task, labels, generator, confusion)  # type: ignore[arg-type]
    began = time.process_time()
    relabelled = copy(heads)
    relabelled.data = dataset.build_dataset(
        changed, "the records", heads.tasks, {task: labels}, heads.tokenizer, heads.max_length
    )
    judged = search.out_of_fold(relabelled, changed, folds.Folding())
    mixed = search.with_neighbours(judged, relabelled)
    found = search.suspects_among(changed, heads.tasks, mixed)
    seconds = time.process_time() - began
    count = sum(map(len, planted.values()))
    hits = [is_planted(one.record - 1, region(one), planted) for one in found[:count]]
    result = {
        "planted": count,
        "seconds": round(seconds),
        "ours": sum(map(bool, hits)) / count,
        "kinds": Counter(kind for kind in hits if kind),
    }
    probabilities = {"": judged}
    if not isinstance(labels, TagSet):
        probabilities = {" of the heads": judged, " with neighbours": mixed}
    for title, made in probabilities.items() if find_spec("cleanlab") else ():
        shares = cleanlab(changed, task, labels, made, planted, count)
        result |= {method + title: share for method, share in shares.items()}
    return result


Planted = dict[int, list[tuple[str, Place]]]


def plant_classes(
    records: Sequence[Record], task: str, labels: LabelSet, generator: np.random.Generator,
    confusion: Any,
) -> tuple[list[Record], Planted]:  # fmt: skip
    """Exchange the classes of some records."""
    chosen = generator.choice(len(records), round(SHARE * len(records)), replace=False).tolist()
    changed = list(records)
    for i in chosen:
        own = labels.index(records[i].labels[task])
        weights = np.ones(len(labels)) if confusion is None else confusion[own].copy()
        weights[own] = 0.0
        other = labels.names[int(generator.choice(len(labels), p=weights / weights.sum()))]
        changed[i] = replace(records[i], labels={task: other})
    return changed, {i: [("class", (0, 1))] for i in chosen}


def plant_entities(
    records: Sequence[Record], task: str, labels: TagSet, generator: np.random.Generator,
    confusion: Any,
) -> tuple[list[Record], Planted]:  # fmt: skip
    """Make entities wrong, one of a record at most.

    By confusion, superfluous ones begin with a capital, unless the data have none.
    """
    capitals = confusion is not None and any(map(_has_capital, records))
    spans = [list(record.labels[task]) for record in records]
    places = [(i, span) for i, some in enumerate(spans) for span in some]
    wanted = round(SHARE * len(places))
    order = iter(generator.permutation(len(places)).tolist())
    planted: Planted = {}
    kinds = ("type", "border", "missing", "superfluous")
    while (number := len(planted)) < wanted:
        kind = kinds[number % len(kinds)]
        i = int(generator.integers(len(records)))
        span = None
        if kind != "superfluous":
            i, span = places[next(order)]
        new = None if i in planted else changed_entity(
            records[i], spans[i], span, kind, labels.types, generator, confusion, capitals
        )  # fmt: skip
        if new is None:
            continue
        spans[i] = [one for one in spans[i] if one != span] + new
        parts = [one for one in (span, *new) if one is not None]
        planted[i] = [(kind, (min(s.start for s in parts), max(s.end for s in parts)))]
    changed = [
        replace(r, labels={task: tuple(sorted(s))}) for r, s in zip(records, spans, strict=True)
    ]
    return changed, planted


def _has_capital(record: Record) -> bool:
    return any(record.text[start].isupper() for start, _ in record.tokens or ())


def changed_entity(
    record: Record, spans: Sequence[Span], span: Span | None, kind: str, types: Sequence[str],
    generator: np.random.Generator, confusion: Any, capitals: bool,
) -> list[Span] | None:  # fmt: skip
    """Return what replaces an entity; None where it cannot be changed so."""
    units = list(record.tokens or ())
    if span is None:
        free = [u for u in units if not any(s.start < u[1] and u[0] < s.end for s in spans)]
        if capitals:
            free = [u for u in free if record.text[u[0]].isupper()]
        if not free:
            return None
        start, end = free[generator.integers(len(free))]
        return [Span(start, end, types[int(generator.integers(len(types)))])]
    if kind == "missing":
        return []
    if kind == "type":
        own = types.index(span.label)
        weights = np.ones(len(types)) if confusion is None else confusion[own].copy()
        weights[own] = 0.0
        other = int(generator.choice(len(types), p=weights / weights.sum()))
        return [replace(span, label=types[other])]
    inside = [n for n, u in enumerate(units) if u[0] < span.end and span.start < u[1]]
    first, last = inside[0], inside[-1]
    choices = [
        Span(units[a][0], units[b][1], span.label)
        for a, b in ((first - 1, last), (first + 1, last), (first, last - 1), (first, last + 1))
        if 0 <= a <= b < len(units)
    ]
    others = [s for s in spans if s != span]
    choices = [c for c in choices if not any(s.start < c.end and c.start < s.end for s in others)]
    return [choices[generator.integers(len(choices))]] if choices else None


def confusions(
    records: Sequence[Record], task: str, labels: LabelSet, made: search.Probabilities
) -> Any:
    """Return how probable each class, or entity type, is where each one is right."""
    names = labels.types if isinstance(labels, TagSet) else labels.names
    total = np.full((len(names), len(names)), 1e-6)
    for record, words, logs in zip(records, made.words, made.logs[task], strict=True):
        shares = np.exp(logs)
        if not isinstance(labels, TagSet):
            total[labels.index(record.labels[task])] += shares
            continue
        for span in record.labels[task]:
            here = [n for n, (s, e) in enumerate(words) if s < span.end and span.start < e]
            for to, kind in enumerate(names):
                columns = [labels.index(f"B-{kind}"), labels.index(f"I-{kind}")]
                total[names.index(span.label), to] += shares[here][:, columns].sum()
    return total


def region(suspect: Any) -> Place:
    """Return the characters that a suspect is about; of a class, those of any."""
    parts = [part for part in (suspect.given, suspect.proposed) if isinstance(part, dict)]
    if not parts:
        return (0, 1)
    return min(p["start"] for p in parts), max(p["end"] for p in parts)


def is_planted(record: int, place: Place, planted: Planted) -> str:
    """Return the kind of the planted label that a suspect overlaps, or an empty string."""
    for kind, (start, end) in planted.get(record, ()):
        if place[0] < end and start < place[1]:
            return kind
    return ""


def cleanlab(
    records: Sequence[Record], task: str, labels: LabelSet, made: search.Probabilities,
    planted: Planted, count: int,
) -> dict[str, float]:  # fmt: skip
    """Return the same share for cleanlab's rankings, on the same probabilities."""
    from cleanlab.rank import get_label_quality_scores  # type: ignore[import-not-found, import-untyped, unused-ignore]

    if not isinstance(labels, TagSet):
        given = np.array([labels.index(record.labels[task]) for record in records])
        shares = np.exp(np.stack(made.logs[task])).astype(np.float64)
        shares /= shares.sum(axis=1, keepdims=True)
        result = {}
        for method in ("self_confidence", "normalized_margin"):
            order = np.argsort(get_label_quality_scores(given, shares, method=method))[:count]
            result[f"cleanlab {method}"] = float(np.mean([int(i) in planted for i in order]))
        return result
    from manyheads.tasks.kinds import word_tags

    rows, places, given_tags = [], [], []
    for i, (record, words) in enumerate(zip(records, made.words, strict=True)):
        rows.append(np.exp(made.logs[task][i]).astype(np.float64))
        places += [(i, place) for place in words]
        given_tags += word_tags(record.labels[task], np.array(words).reshape(-1, 2), labels)
    shares = np.concatenate(rows)
    shares /= shares.sum(axis=1, keepdims=True)
    scores = get_label_quality_scores(np.array(given_tags), shares, method="self_confidence")
    # Neighbouring words of one entity are one suspect.
    seen: set[tuple[int, int]] = set()
    hits: list[bool] = []
    for n in np.argsort(scores).tolist():
        i, place = places[n]
        is_new = (i, n - 1) not in seen and (i, n + 1) not in seen
        seen.add((i, n))
        if not is_new:
            continue
        hits.append(bool(is_planted(i, place, planted)))
        if len(hits) == count:
            break
    return {"cleanlab tokens": float(np.mean(hits))}


if __name__ == "__main__":
    main()
