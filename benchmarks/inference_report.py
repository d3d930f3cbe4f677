"""The report of `inference.py`, as tables and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

OUR_NAMES = {
    "onnx-int8": "Manyheads int8, onnxruntime",
    "openvino-int8": "Manyheads int8, OpenVINO",
    "onnx": "Manyheads float32, onnxruntime",
    "openvino": "Manyheads float32, OpenVINO",
    "torch float32": "Manyheads float32, torch",
    "torch bf16": "Manyheads bf16, torch",
}


def markdown(report: Mapping[str, Any]) -> str:
    """Return the tables for the documentation."""
    rates, latencies, ours = report["sentences_per_second"], report["latency_ms"], report["ours"]
    where = report["machine"]
    lines = [
        f"{report['sentences']:,} SNIPS test sentences of {report['tokens_per_sentence']:.1f} "
        f"sub-tokens, from text to class, slots and embedding; {where['processor']}, "
        f"{where['threads']} threads. Factors are those of {OUR_NAMES[ours]}.",
        "",
        "| system | sentences/s | factor | p50 ms | factor | p99 ms | accuracy | slot F1 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, rate in sorted(rates.items(), key=lambda pair: -pair[1]):
        wait, exact = latencies[name], report["accuracy"][name]
        scores = [f"{100 * exact[key]:.2f}" if key in exact else "" for key in ("accuracy", "f1")]
        lines.append(
            f"| {title_of(report, name)} | {rate:,.0f} | {report['ratios'][name]:.1f} | "
            f"{wait['p50']:.2f} | {report['latency_ratios'][name]:.1f} | {wait['p99']:.2f} | "
            f"{' | '.join(scores)} |"
        )
    stages = report["stages_seconds"]
    names = [name for name in stages[ours] if name != "total"]
    lines += [
        "",
        "Where the time goes, on one thread:",
        "",
        f"| stage | {' | '.join(OUR_NAMES[backend] for backend in stages)} |",
        f"|---|{'---:|' * len(stages)}",
    ]
    for name in names:
        shares = [f"{100 * one[name] / one['total']:.1f} %" for one in stages.values()]
        lines.append(f"| {name} | {' | '.join(shares)} |")
    peak = report["int8_operations_per_second"][str(where["threads"])]
    share = {
        part: f"{100 * report[f'share_of_int8_rate{part}']:.0f} %"
        for part in ("", "_on_one_thread", "_in_graph")
    }
    lines += [
        "",
        f"The machine multiplies {peak / 1e9:,.0f} billion int8 operations a second; "
        f"{OUR_NAMES[ours]} uses {share['']} of that end to end. On one thread it uses "
        f"{share['_on_one_thread']} of what one multiplies, and {share['_in_graph']} "
        "within the graph.",
        "",
    ]
    return "\n".join(lines)


def title_of(report: Mapping[str, Any], name: str) -> str:
    """Return a system's name for readers."""
    notes = report["notes"].get(name, {})
    padded = f" (to {notes['padded to']})" if "padded to" in notes else ""
    return OUR_NAMES.get(name, name) + padded


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
    titles = [title_of(report, name) for name in names]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 0.5 * len(names) + 1.6), sharey=True)
    colours = ["#1f77b4" if name in OUR_NAMES else "#9a9a9a" for name in names]
    for axes, values, title, form in (
        (left, list(rates.values()), "sentences a second, in batches", "{:,.0f}"),
        (right, [report["latency_ms"][n]["p50"] for n in names], "ms a sentence, one by one (p50)",
         "{:.1f}"),
    ):  # fmt: skip
        bars = axes.barh(titles, values, color=colours)
        axes.bar_label(bars, [form.format(value) for value in values], padding=3)
        axes.set_xlim(0, 1.18 * max(values))
        axes.set_title(title, fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=140)
