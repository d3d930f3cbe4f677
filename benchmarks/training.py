"""Speed of training: Manyheads and common alternatives, side by side in one run.

    python benchmarks/training.py --data SNIPS_FOLDER [--threads N]

SNIPS_FOLDER holds `train` and `dev`. Every system trains an intent classifier and a slot tagger on
the same sentences, with the same batch size and number of epochs. All but spaCy start from the same
weights; the tagger of Manyheads is set to read no shapes of words, as the others. Two values are
measured, each in its own process:

- speed: real sub-tokens per second of one epoch over `--speed-records` sentences (the slow plain
  loop stops after `--plain-steps` batches);
- accuracy: the metrics on the dev data after `--epochs` epochs over `--records` sentences, for
  each seed.

Writes training.json, training.md and training.png. An interrupted benchmark continues from the
finished parts in `training-parts`. `--only` runs some parts and writes no report.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from accuracy import machine
from machine_rate import parameters, product_rates, shares
from manyheads.config import Config
from manyheads.evaluation import mean_interval
from manyheads.modeling import keep_freed_memory
from manyheads.training import prepare_run
from rivals import SpacyPipeline
from snips import INTENT, SLOTS, TASKS, configuration, first_records, records_of, training_parser
from step_account import account, operators
from step_account import markdown as account_tables
from training_rivals import hf_trainer, plain_loop

OURS, PLAIN, TRAINER, SPACY = "ours", "plain", "trainer", "spacy"
NAMES: Mapping[str, str] = {
    OURS: "Manyheads",
    TRAINER: "transformers' Trainer, dynamic padding",
    PLAIN: "plain loop, padded to max_length",
    SPACY: "spaCy, shared tok2vec",
}
METRICS: Mapping[str, str] = {"accuracy": "intent accuracy", "f1": "slot F1"}
RATE, ACCOUNT, SPEED, ACCURACY = "rate", "account", "speed", "accuracy"

SMOKE: Mapping[str, Any] = {
    "records": 12, "speed_records": 12, "epochs": 1, "seeds": [1], "plain_steps": 1,
    "account_records": 12, "batch_size": 4,
}  # fmt: skip


def main(given: Sequence[str] | None = None) -> None:
    """Measure what is missing and write the report."""
    parser = training_parser(__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--speed-records", type=int, default=4_000)
    parser.add_argument("--plain-steps", type=int, default=12)
    parser.add_argument("--account-records", type=int, default=2_000)
    parser.add_argument("--systems", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts, such as speed-ours-1")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    for name, value in SMOKE.items() if arguments.smoke else ():
        setattr(arguments, name, value)
    if SPACY in arguments.systems and find_spec("spacy") is None:
        print("spaCy is not installed: pip install -r benchmarks/requirements.txt")
        arguments.systems.remove(SPACY)
    folder = arguments.out / "training-parts"
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.part:
        _write(folder / f"{arguments.part}.json", measure(arguments, arguments.part))
        return
    for part in arguments.only or parts(arguments):
        path = folder / f"{part}.json"
        if path.exists():
            continue
        print(f"{part} ...", flush=True)
        if arguments.smoke:
            _write(path, measure(arguments, part))
        else:
            options = sys.argv[1:] if given is None else list(given)
            subprocess.run([sys.executable, __file__, *options, "--part", part], check=True)
    if not arguments.only:
        write_report(arguments, folder)


def parts(arguments: argparse.Namespace) -> list[str]:
    """Return the names of all parts, in order."""
    speeds = [f"{SPEED}-{system}-{arguments.seeds[0]}" for system in arguments.systems]
    accuracies = [
        f"{ACCURACY}-{system}-{seed}" for system in arguments.systems for seed in arguments.seeds
    ]
    return [RATE, *speeds, ACCOUNT, *accuracies]


def measure(arguments: argparse.Namespace, part: str) -> dict[str, Any]:
    """Run one part."""
    torch.set_num_threads(arguments.threads)
    kind, *rest = part.split("-")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        if kind == RATE:
            found = machine_rates(arguments, folder)
        elif kind == ACCOUNT:
            config = _config(arguments, folder, arguments.account_records, 1, 1)
            steps = arguments.account_records // arguments.batch_size
            found = account(config, skip=min(10, steps // 4))
            found["operators"] = operators(config, first=1, last=min(15, found["steps"]))
        else:
            system, seed = rest[0], int(rest[1])
            fast = kind == SPEED
            records = arguments.speed_records if fast else arguments.records
            epochs = 1 if fast else arguments.epochs
            config = _config(arguments, folder, records, epochs, seed)
            found = train_with(system, config, arguments.plain_steps if fast else None)
    wall = time.perf_counter() - began
    return {**found, "wall_seconds": wall, "processor_seconds": time.process_time()}


def _config(
    arguments: argparse.Namespace, work: Path, records: int, epochs: int, seed: int
) -> Config:
    model = {"model_name": arguments.model} if arguments.model else {}
    # The heads of all systems have the same weights at the beginning.
    tasks = {INTENT: TASKS[INTENT], SLOTS: {**TASKS[SLOTS], "word_features": "off"}}
    return configuration(
        first_records(arguments.data / "train", records, work),
        arguments.data / "dev",
        work / "saved",
        batch_size=arguments.batch_size,
        max_length=arguments.max_length,
        num_epochs=epochs,
        seed=seed,
        threads=arguments.threads,
        precision=arguments.precision,
        device="cpu",
        tasks=tasks,
        **model,
    )


def machine_rates(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure the machine's rates at the shapes of the batches."""
    records = max(arguments.batch_size, 50)
    keep_freed_memory()
    config = _config(arguments, work, records, 1, 1)
    run = prepare_run(config, resume=False, overwrite=True, report=lambda text: None)
    tokens = round(arguments.batch_size * float(run.data.datasets[0].tokens.lengths.mean()))
    encoder = run.model.encoder
    hidden = encoder.shape.hidden_size
    wide = int(getattr(encoder.backbone.config, "intermediate_size", 4 * hidden))
    rates = product_rates(tokens, hidden, wide)
    return {"tokens": tokens, "rates": rates, "parameters": parameters(encoder)}


def train_with(system: str, config: Config, plain_steps: int | None) -> dict[str, Any]:
    """Train with one system; return its speed and its metrics on the dev data."""
    if system == OURS:
        found = account(config, whole=True)
        tasks = found["history"][-1]["metrics"]["tasks"]
        precision, seconds, tokens = found["precision"], found["seconds"], found["tokens"]
        steps = found["steps"]
    else:
        keep_freed_memory()
        run = prepare_run(config, resume=False, overwrite=True, report=lambda text: None)
        precision = "float32"
        if system == SPACY:
            folders = config.train_file or "", config.valid_file or ""
            train, dev = (records_of(Path(folder), config) for folder in folders)
            pipeline = SpacyPipeline(
                train, INTENT, SLOTS, epochs=config.epochs, seed=config.seed,
                batch_size=config.batch_size,
            )  # fmt: skip
            seconds, steps = pipeline.seconds, pipeline.steps
            # Counted by the encoder's tokenizer, because the sentences are the same.
            tokens = config.epochs * int(run.data.datasets[0].tokens.lengths.sum())
            scores = pipeline.scores(dev)
        else:
            if system == PLAIN:
                trained = plain_loop(run, plain_steps)
            else:
                trained = hf_trainer(run, config.save_dir)
            seconds, steps, tokens = trained.seconds, trained.steps, trained.tokens
            tasks = run.evaluate()["tasks"] if plain_steps is None else {}
    if system != SPACY:
        scores = {"accuracy": tasks[INTENT]["accuracy"], "f1": tasks[SLOTS]["f1"]} if tasks else {}
    return {
        "system": system,
        "precision": precision,
        "tokens": tokens,
        "steps": steps,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "scores": scores,
    }


def write_report(arguments: argparse.Namespace, folder: Path) -> None:
    """Combine the parts."""
    found = {part: json.loads((folder / f"{part}.json").read_text()) for part in parts(arguments)}
    speeds = {s: found[f"{SPEED}-{s}-{arguments.seeds[0]}"] for s in arguments.systems}
    runs = {
        s: [found[f"{ACCURACY}-{s}-{seed}"] for seed in arguments.seeds] for s in arguments.systems
    }
    rate = found[RATE]
    ours = speeds[OURS]["tokens_per_second"]
    report = {
        "machine": machine(),
        "threads": arguments.threads,
        "torch": torch.__version__,
        "settings": {
            name: getattr(arguments, name)
            for name in ("batch_size", "max_length", "records", "epochs", "seeds", "speed_records")
        },
        "speed": speeds,
        "ratios": {s: ours / speed["tokens_per_second"] for s, speed in speeds.items()},
        "rate": rate,
        "share_of_rate": shares(ours, rate["parameters"], rate["rates"]),
        "account": found[ACCOUNT],
        "accuracy": runs,
    }
    _write(arguments.out / "training.json", report)
    text = markdown(report)
    (arguments.out / "training.md").write_text(text)
    print(text)
    draw(report, arguments.out / "training.png")
    print(f"Saved {arguments.out}/training.json and training.md")


def markdown(report: Mapping[str, Any]) -> str:
    """Return the tables for the documentation."""
    settings = report["settings"]
    batch = settings["batch_size"]
    lines = [
        f"One epoch over {settings['speed_records']:,} SNIPS sentences, batches of {batch}; "
        f"{report['machine']}, {report['threads']} threads.",
        "",
        "| system | arithmetic | real sub-tokens/s | ours is faster by | ms a step | steps |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for system, speed in report["speed"].items():
        lines.append(
            f"| {NAMES[system]} | {speed['precision']} | {speed['tokens_per_second']:,.0f} | "
            f"{report['ratios'][system]:.1f} | {1e3 * speed['seconds'] / speed['steps']:,.0f} | "
            f"{speed['steps']} |"
        )
    lines += [
        "",
        f"On the dev data after {settings['epochs']} epochs over {settings['records']:,} "
        f"sentences, mean (smallest to largest) of {len(settings['seeds'])} seeds:",
        "",
        f"| system | {' | '.join(METRICS.values())} | seconds of training | processor seconds |",
        "|---|---:|---:|---:|---:|",
    ]
    for system, runs in report["accuracy"].items():
        scores = [_spread([run["scores"][key] for run in runs]) for key in METRICS]
        seconds = statistics.median(run["seconds"] for run in runs)
        processor = statistics.median(run["processor_seconds"] for run in runs)
        lines.append(
            f"| {NAMES[system]} | {' | '.join(scores)} | {seconds:,.0f} | {processor:,.0f} |"
        )
    lines += ["", *_differences(report), "", *_rates(report), ""]
    lines += ["Where the time of a step goes:", "", account_tables(report["account"])]
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    low, high = 100 * min(values), 100 * max(values)
    return f"{100 * statistics.mean(values):.1f} ({low:.1f} to {high:.1f})"


def _differences(report: Mapping[str, Any]) -> list[str]:
    """Compare Manyheads with the others, seed by seed."""
    if len(report["settings"]["seeds"]) < 2:
        return []
    lines = ["Ours minus the other, in points, with the 95 % interval over the seeds:", ""]
    for system, runs in report["accuracy"].items():
        if system == OURS:
            continue
        told = []
        for key, name in METRICS.items():
            pairs = zip(report["accuracy"][OURS], runs, strict=True)
            interval = mean_interval(
                [100 * (a["scores"][key] - b["scores"][key]) for a, b in pairs]
            )
            told.append(
                f"{name} {interval.mean:+.1f} ({interval.low:+.1f} to {interval.high:+.1f})"
            )
        lines.append(f"- {NAMES[system]}: {', '.join(told)}")
    return lines


def _rates(report: Mapping[str, Any]) -> list[str]:
    rate, share = report["rate"], report["share_of_rate"]
    counts = rate["parameters"]
    return [
        f"The machine's matrix products at the encoder's shapes (batches of {rate['tokens']} "
        "sub-tokens; forward and the two backward ones, in a layer's proportion):",
        "",
        "| | billion operations/s | ours, of parameters in products | ours, of all parameters |",
        "|---|---:|---:|---:|",
        *(
            f"| {precision} | {rates['all'] / 1e9:,.0f} "
            f"| {100 * share['products'][precision]:.0f} % "
            f"| {100 * share['all'][precision]:.0f} % |"
            for precision, rates in rate["rates"].items()
        ),
        "",
        "Ours is counted as 6 x parameters x real sub-tokens a second: "
        f"{counts['products'] / 1e6:.1f} million parameters are in matrix products, and "
        f"{counts['all'] / 1e6:.1f} million there are with the tables of embeddings, which nothing "
        "multiplies.",
    ]


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw the systems' speed and the time of a step by stage."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    speeds = {NAMES[s]: speed["tokens_per_second"] for s, speed in report["speed"].items()}
    speeds = dict(sorted(speeds.items(), key=lambda pair: pair[1]))
    stages = dict(sorted(report["account"]["stages_ms"].items(), key=lambda pair: pair[1]))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.4))
    for axes, values, title, form in (
        (left, speeds, "real sub-tokens a second in training", "{:,.0f}"),
        (right, stages, "milliseconds of one of our steps", "{:.1f}"),
    ):
        ours = [axes is right or name == NAMES[OURS] for name in values]
        colours = ["#1f77b4" if one else "#9a9a9a" for one in ours]
        bars = axes.barh(list(values), list(values.values()), color=colours)
        axes.bar_label(bars, [form.format(value) for value in values.values()], padding=3)
        axes.set_xlim(0, 1.18 * max(values.values()))
        axes.set_title(title, fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=140)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
