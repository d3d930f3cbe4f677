"""`manyheads data check`: what is wrong with data, before anyone trains on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyheads.cli.errors import tell
from manyheads.cli.options import (
    FieldMap,
    FileFormat,
    JsonFile,
    LabelSeparator,
    Text2Field,
    TextField,
    TokensField,
    layout_of,
    write_json_to,
)
from manyheads.config import Config, TaskConfig, load_config, make_config
from manyheads.errors import CheckFailed, ModelError, RequestError, counted, listing, nearest
from manyheads.tasks import known_kinds

if TYPE_CHECKING:
    from manyheads.text import TextTokenizer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback()
def data() -> None:
    """Look at data before training: `manyheads data check FILE ...`."""


@app.command()
def check(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="Data of any format, what is trained on first. Default: the files of CONFIG.",
        ),
    ] = None,
    *,
    config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG", help="A configuration: its tasks, encoder and files."),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="NAME=KIND[:FIELD]",
            help="A task and the field of its labels, such as topic=classification:label. "
            "Repeatable. Default: those of CONFIG, or what the usual fields hold.",
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=4, help="Sub-tokens of a record that training reads. Default: CONFIG."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="Findings of a kind listed for a file.")
    ] = 10,
    format: FileFormat = None,
    text_field: TextField = None,
    text2_field: Text2Field = None,
    tokens_field: TokensField = None,
    field_map: FieldMap = None,
    label_separator: LabelSeparator = None,
    json_file: JsonFile = None,
) -> None:
    """Counts, labels, lengths, duplicates, leaks and faults; status 1 if something is wrong."""
    settings = None if config is None else load_config(config)
    wanted = dict(task_of(text) for text in tasks or ()) or (settings.tasks if settings else None)
    paths = files or (None if settings is None else _files_of(settings, wanted or {}))
    if paths is None:
        raise RequestError(
            "no data is named", expected="files", fix="Name them, or --config CONFIG that does."
        )

    from manyheads.data.check import Severity, check_data
    from manyheads.display import data_sections, show

    settings = settings and _started_from(settings)
    length = max_length or (settings or Config()).max_length
    layout = layout_of(
        format, text_field, text2_field, tokens_field, field_map, label_separator, settings
    )
    report = check_data(paths, wanted, _tokenizer(settings), length, layout=layout, limit=limit)
    write_json_to(json_file, report.to_json())
    if json_file != "-":
        show(data_sections(report))
    if not report.ok:
        raise CheckFailed(
            f"the data have {counted(report.count(Severity.ERROR), 'error')}",
            fix="Mend them, or training will fail, learn something wrong or be measured wrongly.",
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
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="Data of any format.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")],
    *,
    to: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Whose format to write: manyheads, doccano or label-studio."
        ),
    ] = "manyheads",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Write this model's predictions, to be corrected in the tool."
        ),
    ] = None,
    format: FileFormat = None,
    text_field: TextField = None,
    text2_field: Text2Field = None,
    tokens_field: TokensField = None,
    field_map: FieldMap = None,
    label_separator: LabelSeparator = None,
) -> None:
    """Write data of any format as JSON lines that train, or for a labelling tool."""
    from manyheads.api import convert as run

    layout = layout_of(format, text_field, text2_field, tokens_field, field_map, label_separator)
    unread: dict[str, int] = {}
    count = run(source, target, to=to, layout=layout, model=model, on_unread=unread.update)
    for what, number in unread.items():
        tell("note", f"not written: {number:,} {what}")
    print(f"{counted(count, 'record')}: {target}")


def task_of(text: str) -> tuple[str, TaskConfig]:
    """Read `NAME=KIND[:FIELD]`.

    Raises:
        RequestError: it has another form, or there is no such kind.
        ConfigError: a task cannot be called so.
    """
    name, equals, rest = text.partition("=")
    kind, _, field = rest.partition(":")
    kinds = known_kinds()
    if not equals or not name or kind not in kinds:
        raise RequestError(
            f"--task {text!r} names no kind of task{nearest(kind, kinds)}",
            expected=f"NAME=KIND or NAME=KIND:FIELD, KIND one of {listing(kinds)}",
        )
    values = {"kind": kind, **({"field": field} if field else {})}
    return name, make_config({"tasks": {name: values}}).tasks[name]


def _files_of(settings: Config, wanted: Mapping[str, TaskConfig]) -> Mapping[str, Sequence[str]]:
    """Return the configuration's files with the tasks they are for, training first."""
    training, validation = settings.train_files(), settings.valid_files()
    for path in validation:
        if path in training:
            raise RequestError(
                f"{path} is both training and validation data",
                expected="different files",
                fix="Validate on records that training does not see.",
            )
    files = {**training, **validation}
    return {
        path: [n for n in names if n in wanted] or list(wanted) for path, names in files.items()
    }


def _started_from(settings: Config) -> Config:
    """Fill in the encoder and the length of inputs of a trained model that training starts from."""
    from manyheads.storage import is_model_folder, read_manifest, resolve_model

    if settings.init_from is None:
        return settings
    path = resolve_model(settings.init_from)
    update: dict[str, object] = {"model_name": str(path)}
    if "max_length" not in settings.model_fields_set and is_model_folder(path):
        update["max_length"] = read_manifest(path).max_length
    return settings.model_copy(update=update)


def _tokenizer(settings: Config | None) -> TextTokenizer | None:
    """Return the encoder's tokenizer, or say why nothing will be said about truncation."""
    from manyheads.modeling import TOKENIZER, find_encoder, packaged_encoder
    from manyheads.text import TextTokenizer

    try:
        # Without a configuration, no encoder is fetched from anywhere.
        if settings is None and packaged_encoder() is None:
            raise ModelError("no encoder is named", fix="Name one in a --config CONFIG.")
        settings = settings or Config()
        source = find_encoder(settings.model_name, settings.pooling)
        return TextTokenizer.from_json(source.files[TOKENIZER].decode(), where=str(source.folder))
    except ModelError as error:
        tell("note", f"truncation is not checked: {error}")
        return None
