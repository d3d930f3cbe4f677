"""How far scores can be trusted: scope, calibration and thresholds of trained models.

    python benchmarks/trust.py clinc150 --data DIR
    python benchmarks/trust.py banking77 --data DIR
    python benchmarks/trust.py snips --data DIR
    python benchmarks/trust.py wnut17 --data DIR
    python benchmarks/trust.py clinc150 --known 0.75 --data DIR

The models are trained by the default settings (`manyheads train FILE --valid-file FILE`). DIR holds
`clinc150/data_full.json`, `banking77/`, `snips/` and `wnut17/`. An interrupted benchmark goes on
where it was: a finished run is only scored, and scored only once. Everything is chosen on
validation data. With `--known` a share of the classes is kept for training (drawn by the seed), the
rest is unknown in the test. The numbers go to NAME-KNOWN.json in `--out`, with a picture in
NAME-KNOWN.svg.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from few import snips
from manyheads.api import calibrate, thresholds, train
from manyheads.evaluation import Outcomes, clopper_pearson, labelled_sets, mean_interval, score
from manyheads.inference import Runtime, load_model
from manyheads.modeling import keep_freed_memory
from manyheads.tasks.metrics import reliability, risk_coverage

Records = list[dict[str, Any]]
Curves = dict[str, list[float]]

PRECISIONS = (0.9, 0.95, 0.99)
RECALL_AT = (0.95, 0.96)
"""In-scope accuracies at which the recall of texts out of scope is measured."""
CLASSES = "classification"
"""The name that training gives a task of classes."""
COVERAGES = np.linspace(0.01, 1.0, 100)
"""The shares of decided answers at which a curve has its share of errors."""


def main() -> None:
    """Run the seeds of one data set, and print the mean of each number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("clinc150", "banking77", "snips", "wnut17"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results/trust"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--known", type=float, default=1.0, help="share of the classes known")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    keep_freed_memory()
    name = f"{arguments.name}-{arguments.known:g}"
    runs, curves = zip(*(run_seed(arguments, name, seed) for seed in arguments.seeds), strict=True)
    # A precision that a seed does not reach is not among its numbers.
    for key in {key: None for run in runs for key in run}:
        interval = mean_interval([float(run[key]) for run in runs if key in run])
        spread = "" if interval.low is None else f"  {interval.low:.4f} to {interval.high:.4f}"
        print(f"{key:44} {interval.mean:.4f}{spread}")
    found = {"seeds": arguments.seeds, "runs": runs, "curves": curves}
    (arguments.out / f"{name}.json").write_text(json.dumps(found) + "\n")
    picture(curves, arguments.out / f"{name}.svg")


def run_seed(
    arguments: argparse.Namespace, name: str, seed: int
) -> tuple[dict[str, float], dict[str, Curves]]:
    """Train with one seed, unless that is done, and measure the model on the test data."""
    folder = arguments.out / f"{name}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    scored = folder / "scores.json"
    if scored.exists():
        found, curves = json.loads(scored.read_text())
        return found, curves
    parts = split(arguments.name, arguments.data, arguments.known, seed)
    paths = {part: folder / f"{part}{_ending(arguments.name)}" for part in parts}
    for part, contents in parts.items():
        paths[part].write_text(contents, encoding="utf-8")
    run = folder / "run"
    if not (run / "best" / "manyheads.json").exists():
        train(
            str(paths["train"]), valid=str(paths["valid"]), save_dir=str(run), seed=seed,
            threads=arguments.threads, resume=run.exists(), progress=False,
        )  # fmt: skip
    best = run / "best"
    # Repeated, because an earlier scoring of this run may have calibrated it with other texts.
    calibrate(best, str(paths["valid"]), threads=arguments.threads)
    found, curves = calibration(best, paths["test"])
    if "strange" in paths:
        found |= scope(best, paths)
    found |= promises(best, paths)
    scored.write_text(json.dumps([found, curves]) + "\n")
    return found, curves


def split(name: str, data: Path, known: float, seed: int) -> dict[str, str]:
    """Return the contents of each part's file."""
    if name == "wnut17":
        files = {
            "train": "wnut17train.conll", "valid": "emerging.dev.conll",
            "test": "emerging.test.annotated",
        }  # fmt: skip
        return {part: (data / "wnut17" / file).read_text() for part, file in files.items()}
    parts: dict[str, Records] = {}
    if name == "snips":
        folders = {"train": "train", "valid": "dev", "test": "test"}
        parts = {part: snips(data, folder) for part, folder in folders.items()}
    elif name == "clinc150":
        whole = json.loads((data / "clinc150" / "data_full.json").read_text())
        for part, key in (("train", "train"), ("valid", "val"), ("test", "test")):
            parts[part] = [{"text": text, "label": label} for text, label in whole[key]]
        parts["strange"] = [{"text": text} for text, _ in whole["oos_test"]]
        parts["unknown"] = [{"text": text} for text, _ in whole["oos_train"]]
    else:
        rows = {part: _rows(data / "banking77" / f"{part}.csv") for part in ("train", "test")}
        random.Random(0).shuffle(rows["train"])
        parts = {"train": rows["train"][1500:], "valid": rows["train"][:1500]}
        parts["test"] = rows["test"]
    if known < 1:
        labels = sorted({record["label"] for record in parts["train"]})
        kept = set(random.Random(seed).sample(labels, round(known * len(labels))))
        rest = [record for record in parts["test"] if record["label"] not in kept]
        for part in ("train", "valid", "test"):
            parts[part] = [record for record in parts[part] if record["label"] in kept]
        # As published: CLINC150's sentences out of scope count as one more unknown class.
        parts["strange"] = [{"text": record["text"]} for record in rest] + parts.get("strange", [])
        parts.pop("unknown", None)
    return {part: _lines(records) for part, records in parts.items()}


def _rows(path: Path) -> Records:
    with path.open(encoding="utf-8") as file:
        return [{"text": r["text"], "label": r["category"]} for r in csv.DictReader(file)]


def _lines(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _ending(name: str) -> str:
    return ".conll" if name == "wnut17" else ".jsonl"


def calibration(best: Path, test: Path) -> tuple[dict[str, float], dict[str, Curves]]:
    """Measure calibration errors on the test data, with calibration and without."""
    found: dict[str, float] = {}
    curves: dict[str, Curves] = {}
    loaded = load_model(best, Runtime("torch"))
    for how in ("calibrated", "plain"):
        if how == "plain":
            loaded.predictor.scorings = {}
        _, sets = labelled_sets(loaded, str(test))
        outcomes = score(loaded.predictor, sets)
        answers = predicted(outcomes)
        for name, task in outcomes.tasks.items():
            confidence = task.confidence(calibrated=how == "calibrated")
            if confidence is None:
                continue
            ending = "" if how == "calibrated" else " of plain scores"
            found |= {f"{name} ece{ending}": confidence["ece"]}
            found |= {f"{name} ece by chance{ending}": confidence["ece_by_chance"]}
            found |= {f"{name} aurc{ending}": confidence["aurc"]}
            scores = np.array([value for of, _, value, _ in answers if of == name])
            right = np.array([is_right for of, _, _, is_right in answers if of == name])
            curves[f"{name}, {how}"] = curve(scores, right)
    return found, curves


def curve(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> Curves:
    """Return the points of a reliability diagram, and the share of errors at each coverage."""
    mean, share, _ = reliability(scores, right)
    covered, errors = risk_coverage(scores, right)
    return {
        "score": mean.tolist(), "right": share.tolist(),
        "errors": np.interp(COVERAGES, covered, errors).tolist(),
    }  # fmt: skip


def picture(seeds: Sequence[Mapping[str, Curves]], path: Path) -> None:
    """Draw the reliability of all seeds' scores, and their mean errors by the share decided."""
    try:
        matplotlib: Any = import_module("matplotlib.figure")
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    figure = matplotlib.Figure(figsize=(7, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours: dict[str, str] = {}
    for name in seeds[0]:
        colour = colours.setdefault(name.split(", ")[0], f"C{len(colours)}")
        form = {"color": colour, "alpha": 0.45 if name.endswith("plain") else 1.0}
        for curves in seeds:
            mark = "x" if name.endswith("plain") else "o"
            label = name if curves is seeds[0] else None
            left.plot(curves[name]["score"], curves[name]["right"], mark, ms=4, label=label, **form)
        errors = np.mean([curves[name]["errors"] for curves in seeds], axis=0)
        line = "--" if name.endswith("plain") else "-"
        right.plot(100 * COVERAGES, 100 * errors, line, label=name, **form)
    left.plot([0, 1], [0, 1], "k:", lw=1)
    left.set(xlabel="mean score of a bin", ylabel="share of right answers")
    right.set(xlabel="decided answers, surest first, %", ylabel="wrong ones among them, %")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def scope(best: Path, paths: Mapping[str, Path]) -> dict[str, float]:
    """Measure how well texts out of scope are recognised, with and without examples of such."""
    found = _scope(best, paths, "without examples")
    if "unknown" in paths:
        calibrate(best, str(paths["valid"]), unknown=str(paths["unknown"]))
        found |= _scope(best, paths, "with examples")
    return found


def _scope(best: Path, paths: Mapping[str, Path], how: str) -> dict[str, float]:
    inside = [json.loads(line) for line in paths["test"].read_text().splitlines()]
    strange = [json.loads(line) for line in paths["strange"].read_text().splitlines()]
    predictor = load_model(best, Runtime("torch")).predictor
    ours, others = (
        predictor.predict([r["text"] for r in some], thresholds=False) for some in (inside, strange)
    )
    known = np.array([p.in_scope for p in ours], np.float64)
    other = np.array([p.in_scope for p in others], np.float64)
    right = np.array([p[CLASSES].label == r["label"] for p, r in zip(ours, inside, strict=True)])
    found = {
        f"{how}: AUROC": area(known, other),
        f"{how}: in-scope accuracy, none refused": float(right.mean()),
        f"{how}: in-scope accuracy at 0.5": float((right & (known >= 0.5)).mean()),
        f"{how}: recall at 0.5": float((other < 0.5).mean()),
    }
    for accuracy in RECALL_AT:
        found[f"{how}: recall at accuracy {accuracy:g}"] = recall_at(known, other, right, accuracy)
    gold = [r["label"] for r in inside] + [None] * len(strange)
    said = [p[CLASSES].label if (p.in_scope or 0) >= 0.5 else None for p in (*ours, *others)]
    found[f"{how}: open accuracy at 0.5"] = float(
        np.mean([a == b for a, b in zip(gold, said, strict=True)])
    )
    found[f"{how}: open macro F1 at 0.5"] = macro_f1(gold, said)
    return found


def area(known: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return how often a text in scope has the higher probability (AUROC); ties count half."""
    ordered = np.sort(other)
    below = np.searchsorted(ordered, known, "left") + np.searchsorted(ordered, known, "right")
    return float(below.mean() / 2 / len(other))


def recall_at(
    known: NDArray[np.float64],
    other: NDArray[np.float64],
    right: NDArray[np.bool_],
    accuracy: float,
) -> float:
    """Return the share of texts out of scope that are refused where this accuracy is left."""
    limits = np.unique(np.concatenate([[0.0], known, other]))
    able = [limit for limit in limits if (right & (known >= limit)).mean() >= accuracy]
    return float((other < max(able)).mean()) if able else 0.0


def macro_f1(gold: Sequence[str | None], said: Sequence[str | None]) -> float:
    """Return the mean F1 over the known classes and the unknown one."""
    scores = []
    for label in {*gold}:
        hits = sum(a == b == label for a, b in zip(gold, said, strict=True))
        scores.append(2 * hits / (gold.count(label) + said.count(label)))
    return float(np.mean(scores))


def promises(best: Path, paths: Mapping[str, Path]) -> dict[str, float]:
    """Ask for precisions, and return the share of labels for which they hold on the test data.

    It holds unless the Clopper-Pearson interval of the precision on the test data is below it.
    """
    loaded = load_model(best, Runtime("torch"))
    _, sets = labelled_sets(loaded, str(paths["test"]))
    answers = predicted(score(loaded.predictor, sets))
    found: dict[str, float] = {}
    for precision in PRECISIONS:
        if not thresholds(best, str(paths["valid"]), precision=precision).reached:
            continue
        scorings = load_model(best, Runtime("torch")).predictor.scorings
        kept: dict[str, list[bool]] = {}
        for task, label, value, is_right in answers:
            limits = scorings[task].thresholds
            if limits is not None and value >= limits.of(label):
                kept.setdefault(label, []).append(is_right)
        holds = [clopper_pearson(sum(v), len(v))[1] >= precision for v in kept.values()]
        every = [is_right for v in kept.values() for is_right in v]
        found |= {
            f"precision {precision:g}: labels where it holds": float(np.mean(holds)),
            f"precision {precision:g}: on test": float(np.mean(every)),
            f"precision {precision:g}: share decided": len(every) / len(answers),
        }
    return found


def predicted(outcomes: Outcomes) -> list[tuple[str, str, float, bool]]:
    """Return the task, label and score of each predicted label, and whether it is right."""
    return [
        (name, one.predicted, one.score, not one.error)
        for name, task in outcomes.tasks.items()
        for answer in zip(task.gold, task.predicted, task.scores, strict=True)
        for one in task.kind.decisions(task.spec, *answer)
        if one.predicted is not None and one.score is not None
    ]


if __name__ == "__main__":
    main()
