"""`manyheads data`: checks data before training, converts, augments and selects them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from manyheads.cli.errors import tell
from manyheads.cli.options import (
    DEFAULT_MODEL,
    ComputeOptions,
    DataOptions,
    JsonFile,
    TaskOptions,
    Tasks,
    Threads,
    takes_groups,
    task_names,
    write_json_to,
)
from manyheads.errors import CheckFailed, counted, listing

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback()
def data() -> None:
    """Look at data before training, convert and augment them: `manyheads data check FILE ...`."""


@app.command()
@takes_groups
def check(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Data of any format, training data first. Default: the files of CONFIG.",
        ),
    ] = None,
    *,
    tasks: TaskOptions,
    max_length: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=4, help="Sub-tokens of a record that training reads. Default: CONFIG."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="Findings of a kind listed for a file.")
    ] = 10,
    data: DataOptions,
    json_file: JsonFile = None,
) -> None:
    """Counts, labels, lengths, duplicates, leaks and faults; status 1 if something is wrong."""
    from manyheads.api.checking import check_files
    from manyheads.data.check import Severity
    from manyheads.display import data_sections, show

    settings = tasks.loaded()
    report = check_files(
        files or (), settings, tasks.named(), max_length, limit=limit,
        layout=data.layout(settings), tell=lambda text: tell("note", text),
    )  # fmt: skip
    write_json_to(json_file, report.to_json())
    if json_file != "-":
        show(data_sections(report))
    if not report.ok:
        raise CheckFailed(
            f"the data have {counted(report.count(Severity.ERROR), 'error')}",
            fix="Correct them, or training will fail, learn wrong labels or be measured wrongly.",
        )


@app.command()
@takes_groups
def suspects(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Labelled data of any format.")],
    *,
    tasks: TaskOptions,
    count: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="How many, the likeliest first. Default: all likely ones."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write them as JSON lines, to review and give to --reviewed."
        ),
    ] = None,
    label_studio: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write their records for Label Studio, proposals as predictions."
        ),
    ] = None,
    fix: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the data with the proposals to this new file."),
    ] = None,
    reviewed: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --fix: take the proposals from these lines of --out, which you have edited; "
            "remove a line to keep the label.",
        ),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option(metavar="ENCODER", help="The encoder. Default: that of CONFIG."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.")
    ] = None,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Determines how records are split.")] = 0,
    data: DataOptions,
    json_file: JsonFile = None,
) -> None:
    """Rank the labels that are likely wrong, each with a proposal.

    Heads are trained on the frozen encoder, each without the records that it judges. FILE is never
    changed.
    """
    from manyheads.api.searches import fix_labels, search, suspect_progress
    from manyheads.display import show, suspect_sections

    given = tasks.loaded()
    layout, wanted = data.layout(given), tasks.named()
    settings = {"model_name": model_name, "device": device, "threads": threads, "seed": seed}
    if reviewed is not None:
        searching = {"out": out, "label_studio": label_studio, "count": count, **settings}
        applied, changed = fix_labels(file, fix, reviewed, given, wanted, layout, searching)
        for note in applied.notes:
            tell("note", note)
        write_json_to(json_file, applied.to_json())
        if json_file != "-":
            print(f"{counted(changed, 'record')} changed: {fix}")
        return
    found = search(
        file, given, wanted, layout, settings, count=count, out=out, label_studio=label_studio,
        fix=fix, progress=suspect_progress(),
    )  # fmt: skip
    write_json_to(json_file, found.to_json())
    if json_file != "-":
        show(suspect_sections(found))
        for path, what in ((out, "lines to review"), (label_studio, "tasks"), (fix, "new data")):
            if path is not None:
                print(f"{what}: {path}")


@app.command()
@takes_groups
def select(
    pool: Annotated[
        str, typer.Argument(metavar="POOL", help="Texts of any format; labels are not read.")
    ],
    *,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="The model to improve.")
    ] = DEFAULT_MODEL,
    count: Annotated[int, typer.Option(metavar="N", min=1, help="How many texts to choose.")] = 100,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The JSON lines to write.")] = Path(
        "selected.jsonl"
    ),
    tasks: Tasks = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Determines the first clusters.")] = 0,
    compute: ComputeOptions,
    data: DataOptions,
) -> None:
    """Choose the texts most worth labelling next: uncertain ones, unlike each other."""
    from manyheads.api.searches import chosen_texts
    from manyheads.display import Counter

    found = chosen_texts(
        pool, model, count, tasks=task_names(tasks), layout=data.layout(), seed=seed, out=out,
        runtime=compute.runtime, progress=lambda: Counter("Reading", unit="texts"),
    )  # fmt: skip
    unsure = [one.uncertainty for one in found.chosen]
    print(
        f"{counted(len(found), 'text')} of {found.texts:,}: {out} "
        f"(uncertainty {min(unsure):.2f} to {max(unsure):.2f})"
    )


@app.command()
def formats() -> None:
    """The formats of data files: their names for --format, what they are, their endings."""
    from manyheads.data.readers import FORMATS
    from manyheads.display import Section, show
    from manyheads.display.tables import make_table

    table = make_table(["name", "format", "endings"], [])
    for name, form in FORMATS.items():
        endings = " ".join(dict.fromkeys((*form.endings, *form.may_end)))
        table.add_row(name, form.description, endings)
    show([Section("Formats of data files", table, "A .gz behind an ending is unpacked.")])


@app.command()
@takes_groups
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="Data of any format.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="The format to write: manyheads, doccano or label-studio."
        ),
    ] = "manyheads",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Write this model's predictions, to be corrected in the tool."
        ),
    ] = None,
    data: DataOptions,
) -> None:
    """Write data of any format as JSON lines that train, or for a labelling tool."""
    from manyheads.api import convert as run

    layout = data.layout()
    unread: dict[str, int] = {}
    count = run(
        source, target, to=to, layout=layout, model=model, on_unread=unread.update,
        warn=lambda text: tell("warning", text),
    )  # fmt: skip
    for what, number in unread.items():
        tell("note", f"not written: {what} ({number:,})")
    print(f"{counted(count, 'record')}: {target}")


@app.command()
@takes_groups
def augment(
    source: Annotated[str, typer.Argument(metavar="IN", help="Data of any format, with entities.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The JSON lines to write.")],
    *,
    copies: Annotated[
        int, typer.Option(metavar="N", min=1, help="New records made from each record.")
    ] = 1,
    seed: Annotated[int, typer.Option(metavar="N", help="Determines the new records.")] = 42,
    data: DataOptions,
) -> None:
    """Write the records, and new ones whose entities are exchanged for others of their type.

    An entity comes from a record of the same class, if records have one.
    """
    from manyheads.api import augment as run

    layout = data.layout()
    done = run(source, target, copies=copies, seed=seed, layout=layout)
    if done.fixed:
        why = "without an entity to exchange, or with words without a label"
        tell("note", f"left as they are, {why}: {counted(done.fixed, 'record')}")
    if done.repeated:
        tell("note", f"left out as repetitions: {counted(done.repeated, 'new record')}")
    if done.left_out:
        fields = listing(f"`{name}`" for name in done.left_out)
        tell("note", f"new records lack {fields}, which are about the words of the old text")
    print(f"{counted(done.records, 'record')} and {done.new:,} new: {target}")
