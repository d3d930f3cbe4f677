"""Options and arguments that commands share, and those that the configuration's schema makes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from pydantic.fields import FieldInfo

from manyheads.config import (
    ALIASES,
    BATCH_TOKENS,
    Config,
    TaskConfig,
    describe,
    literals,
    load_config,
    make_config,
    setting_of,
)
from manyheads.data.readers import Layout
from manyheads.errors import RequestError, listing, nearest
from manyheads.storage import Prefer, json_bytes, write_json
from manyheads.tasks import known_kinds

if TYPE_CHECKING:
    from manyheads.inference import Runtime

DEFAULT_MODEL = "saved_model"


def model_argument(*, checkpoint: bool = True, default: str = "") -> Any:
    """Declare the argument of a trained model.

    Args:
        checkpoint: whether it may be a checkpoint.
        default: in words, which model of the default folder is the default, for the help; empty
            where the command has another default or none.
    """
    return typer.Argument(
        metavar="MODEL",
        help=f"A model folder, {'a .pt checkpoint, ' * checkpoint}or the folder of a run: its best "
        "model." + (f" Default: {default} in {DEFAULT_MODEL}." if default else ""),
        show_default=not default,
    )


TrainedModel = Annotated[str, model_argument()]
ModelFolder = Annotated[str, model_argument(checkpoint=False)]
Device = Annotated[
    str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps, for PyTorch.")
]
Backend = Annotated[
    str,
    typer.Option(metavar="NAME", help="The backend; auto is the fastest that the model has."),
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Processor threads. Default: all available cores."),
]
BatchTokens = Annotated[
    int, typer.Option(metavar="N", min=1, help="Tokens of a batch, padding included.")
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task", "--tasks", metavar="NAME,...", help="These tasks only. Repeatable. Default: all."
    ),
]
JsonFile = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the result as JSON; - is standard output, alone."
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue from the newest intact checkpoint.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the model that is in the folder.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set any field, of a task too: --set tasks.ner.decoder=crf. Repeatable.",
    ),
]
LabelledFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Labelled data of any format. Default: the validation data."),
]
NamedTasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        metavar="NAME=KIND[:FIELD]",
        help="With FILE: a task and the field of its labels, such as topic=classification:label. "
        "Repeatable; no other tasks are looked for.",
    ),
]
_FORMAT = "The format of the data (`manyheads data formats`). Default: by content and ending."
FileFormat = Annotated[str | None, typer.Option("--format", metavar="NAME", help=_FORMAT)]
InputFormat = Annotated[str | None, typer.Option("--input-format", metavar="NAME", help=_FORMAT)]
TextField = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The field or column of the text; a number without header."),
]
Text2Field = Annotated[
    str | None, typer.Option(metavar="NAME", help="The field of the second text of a pair.")
]
TokensField = Annotated[
    str | None, typer.Option(metavar="NAME", help="The field of the tokens: a list of words.")
]
FieldMap = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="FIELD=NAME",
        help="Read a field of the data as another, such as category=label. Repeatable.",
    ),
]
LabelSeparator = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What separates labels in a cell of the column `labels`."),
]
RoleSeparator = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What joins an entity's type with its role and group, which Rasa and LUIS write "
        "apart: with _, a city in the role departure is a city_departure. Default: roles and "
        "groups are not read.",
    ),
]


@dataclass(frozen=True)
class TextOptions:
    """The options for where the texts are in data, as one parameter of a command."""

    format: FileFormat = None
    text_field: TextField = None
    text2_field: Text2Field = None
    tokens_field: TokensField = None
    field_map: FieldMap = None

    def layout(self, settings: Config | None = None) -> Layout:
        """Return how data are laid out: by these options, or else by a configuration."""
        given = {**vars(self), "map": ",".join(self.field_map or ()) or None}
        del given["field_map"]
        values = {name: value for name, value in given.items() if value is not None}
        if settings is None:
            return Layout.of(make_config(values))
        stated = make_config({name: getattr(settings, name) for name in given} | values)
        return replace(Layout.of(stated), own=Layout.of(settings).own)


@dataclass(frozen=True)
class DataOptions(TextOptions):
    """The options for how labelled data are laid out."""

    label_separator: LabelSeparator = None
    role_separator: RoleSeparator = None


@dataclass(frozen=True)
class InputOptions(DataOptions):
    """Those options for a command with a `--format` of its own."""

    format: InputFormat = None


@dataclass(frozen=True)
class ComputeOptions:
    """The options for how a model runs, as one parameter of a command."""

    backend: Backend = "auto"
    device: Device = "auto"
    threads: Threads = None
    batch_tokens: BatchTokens = BATCH_TOKENS

    @property
    def runtime(self) -> Runtime:
        """What runs the model."""
        from manyheads.inference import Runtime

        return Runtime(**vars(self))


@dataclass(frozen=True)
class ScoringOptions:
    """The options for what is scored, as one parameter of a command."""

    checkpoint: Annotated[
        Prefer | None,
        typer.Option(help="Which model of a run's folder to score.", show_default=False),
    ] = None
    file: LabelledFile = None
    tasks: Tasks = None
    drift: Annotated[
        bool,
        typer.Option(
            help="Compare the embedding with that of the encoder that training began with, on at "
            "most 300 of the records."
        ),
    ] = True

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `evaluate` and `report`."""
        return {
            "checkpoint": self.checkpoint,
            "data": self.file,
            "tasks": task_names(self.tasks),
            "drift": self.drift,
        }


@dataclass(frozen=True)
class TaskOptions:
    """The options for which tasks data have, as one parameter of a command."""

    config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG", help="A configuration: its tasks, encoder and files."),
    ] = None
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="NAME=KIND[:FIELD]",
            help="A task and the field of its labels, such as topic=classification:label. "
            "Repeatable. Default: those of CONFIG, or those that `train` finds in the data.",
        ),
    ] = None

    def loaded(self) -> Config | None:
        """Return the configuration, if one is named, which may be that of an earlier run."""
        return None if self.config is None else load_config(self.config, stored=True)

    def named(self) -> dict[str, TaskConfig] | None:
        """Return the named tasks, if there are any."""
        return dict(task_of(text) for text in self.tasks or ()) or None


def takes_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a dataclass by an option for each field."""
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        if not is_dataclass(parameter.annotation):
            parameters.append(parameter)
            continue
        groups[parameter.name] = parameter.annotation
        hints = get_type_hints(parameter.annotation, include_extras=True)
        parameters += [
            inspect.Parameter(
                field.name,
                parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
            for field in fields(parameter.annotation)
        ]

    @wraps(command)
    def grouped(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    grouped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return grouped


FLAT_FIELDS = {
    name: info
    for name, info in Config.model_fields.items()
    if name not in ("tasks", "files") and not setting_of(Config, name).internal
}
"""The fields with an option; tasks are set by dotted keys, and files are arguments."""


def write_json_to(target: str | None, value: object) -> None:
    """Write the value of `--json`: to a file, for `-` to standard output, for None nowhere."""
    if target == "-":
        sys.stdout.write(json_bytes(value).decode("ascii"))
    elif target is not None:
        write_json(target, value)


def task_names(values: Iterable[str] | None) -> list[str] | None:
    """Split `--task a,b --task c` into names; None where the option was not used."""
    names = [name.strip() for value in values or () for name in value.split(",")]
    return [name for name in names if name] or None


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


def named_tasks(tasks: Iterable[str] | None) -> dict[str, Any]:
    """Return the override that `--task NAME=KIND[:FIELD]` means; none without the option."""
    named = dict(task_of(text) for text in tasks or ())
    options = {name: task.model_dump(exclude_unset=True) for name, task in named.items()}
    return {"tasks": options} if options else {}


def takes_config_fields(
    *, without: Iterable[str] = (), defaults: Mapping[str, str] | None = None, otherwise: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command, in place of its `**fields`, an option for each flat field of `Config`.

    Name, other names, allowed values and help are the schema's. The values arrive as text, None
    where an option was not used. Fields that the command has a parameter for are left to it.

    Args:
        without: fields that the command does not take.
        defaults: the command's own defaults, for the help; where empty the schema's.
        otherwise: the default of all other fields, for the help; empty for the schema's.
    """
    own_defaults = defaults or {}

    def give(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        given = signature.parameters.values()
        own = [p for p in given if p.kind is not inspect.Parameter.VAR_KEYWORD]
        left_out = {*without, *(parameter.name for parameter in own)}
        options = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    str | None, _option(name, info, own_defaults.get(name, otherwise))
                ],
            )
            for name, info in FLAT_FIELDS.items()
            if name not in left_out
        ]
        command.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        return command

    return give


def _option(name: str, info: FieldInfo, default: str) -> Any:
    key = describe(Config, name)
    if default:
        key = replace(key, default=default)
    flags = [f"--{n.replace('_', '-')}" for n in (name, *key.aliases)]
    return typer.Option(*flags, metavar=_metavar(name, info.annotation), help=key.help)


def _metavar(name: str, annotation: Any) -> str:
    choices = literals(annotation)
    if choices:
        return "|".join(choices)
    if setting_of(Config, name).path in ("input", "output"):
        return "PATH"
    if annotation is bool:
        return "true|false"
    text = str(annotation)
    if "dict" in text:
        return "{NAME: X, ...}"
    return "N" if "int" in text else "X" if "float" in text else "TEXT"


def overrides_of(fields: Mapping[str, str | None], settings: Iterable[str]) -> dict[str, str]:
    """Join the options of fields and `--set KEY=VALUE` into overrides for `load_config`.

    Raises:
        RequestError: a setting has no value, or a key is set twice.
    """
    overrides = {name: value for name, value in fields.items() if value is not None}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise RequestError(
                f"--set {setting!r} sets nothing",
                expected="KEY=VALUE, such as --set tasks.ner.decoder=crf",
            )
        flat = key.replace("-", "_")
        name = ALIASES.get(flat, flat) if "." not in key else key
        if name in overrides:
            raise RequestError(f"--set {key} sets {name} a second time", fix="Keep one of the two.")
        overrides[name] = value
    return overrides
