"""`manyheads export`: a trained model as graphs that run fast without PyTorch, each compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from manyheads.cli.errors import tell
from manyheads.cli.options import (
    DEFAULT_MODEL,
    InputOptions,
    JsonFile,
    ModelFolder,
    Threads,
    takes_groups,
    write_json_to,
)
from manyheads.errors import CheckFailed, counted, listing

if TYPE_CHECKING:
    from manyheads.exporting import ExportResult, GateReport

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
@takes_groups
def export(
    model: ModelFolder = DEFAULT_MODEL,
    *,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="NAME,...",
            help="float32, int8 (both ONNX) or openvino (float32 and int8). Repeatable. "
            "Default: float32,int8.",
        ),
    ] = None,
    limit: Annotated[
        float,
        typer.Option(
            metavar="POINTS",
            help="The percentage points of its main metric that a task may lose to int8, beyond "
            "what may be chance with so many records.",
        ),
    ] = 0.3,
    file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Labelled data to compare on. Default: the validation data of the run.",
        ),
    ] = None,
    data: InputOptions,
    opset: Annotated[
        int, typer.Option(metavar="N", min=14, max=20, help="The version of ONNX's operators.")
    ] = 17,
    json_file: JsonFile = None,
    threads: Threads = None,
) -> None:
    """Add fast graphs of a model to its folder, each compared with PyTorch before it is used.

    Of int8 the fastest setting is kept with which no task loses more than the limit. Exit status
    1 if no setting of a format passes.
    """
    from manyheads.exporting import DEFAULT_FORMATS, export_model

    names = [name.strip() for value in formats or () for name in value.split(",")]
    quiet = json_file == "-"
    result = export_model(
        model,
        formats=[name for name in names if name] or DEFAULT_FORMATS,
        data=file,
        layout=data.layout(),
        limit=limit,
        opset=opset,
        threads=threads,
        report=(lambda report: None) if quiet else show_report,
        progress=lambda text: tell("export", text),
    )
    write_json_to(json_file, _to_json(result))
    if not quiet:
        for report in result.kept:
            print(f"kept: {report.backend} ({report.setting})")
    if result.missing:
        faults = dict.fromkeys(fault for report in result.refused for fault in report.faults)
        raise CheckFailed(
            f"no {listing(result.missing)} graph passes: {'; '.join(faults)}",
            expected="answers as good as the trained model's",
            fix="Allow more with --limit, or predict with what passed.",
        )


def show_report(report: GateReport) -> None:
    """Print the gate's report on a graph."""
    from manyheads.display import Section, show
    from manyheads.display.tables import cell, make_table

    table = make_table(
        ["task", "metric"],
        ["PyTorch", "graph", "points lost", "changed", "logits off by", "alone"],
    )
    mates = report.batch_mates
    # A task that trains the embedding alone has no answers.
    answering = {name: head for name, head in report.heads.items() if name in mates.changed}
    for name, head in report.heads.items():
        table.add_row(
            cell(name),
            head.metric,
            f"{head.reference:.4f}",
            f"{head.exported:.4f}",
            f"{head.lost:+.2f}",
            f"{head.changed}/{head.decisions}" if name in answering else "-",
            f"{head.max_logit_difference:.2g}" if name in answering else "-",
            f"{mates.changed[name]}/{mates.sentences}" if name in answering else "-",
        )
    size = report.details.get("bytes", 0) / 1e6
    shares = [f"{name} {head.changed_share:.1%}" for name, head in answering.items()]
    unlabelled = counted(report.unlabelled, "training sentence")
    notes = [
        *([f"changed answers, with {unlabelled}: {', '.join(shares)}"] if shares else []),
        f"embeddings: cosine {report.mean_cosine:.4f} on average, {report.min_cosine:.4f} at least",
        f"alone instead of in a batch: probabilities differ by {mates.max_score_difference:.2g} at "
        f"most, embeddings have a cosine of {mates.min_cosine:.4f} at least",
        f"{report.sentences_per_second:,.0f} sentences/s on {counted(report.threads, 'thread')}, "
        f"PyTorch {report.reference_sentences_per_second:,.0f}; one by one "
        f"{report.milliseconds_alone:.1f} ms; {size:,.1f} MB",
        *(f"refused: {fault}" for fault in report.faults),
    ]
    title = f"{report.backend}: {report.setting}, {counted(report.records, 'record')}"
    show([Section(title, table, "\n".join(notes))])


def _to_json(result: ExportResult) -> dict[str, object]:
    def listed(reports: Sequence[GateReport]) -> list[dict[str, object]]:
        return [report.to_json() for report in reports]

    return {
        "folder": str(result.folder),
        "kept": listed(result.kept),
        "refused": listed(result.refused),
        "missing": list(result.missing),
    }
