"""What verbs take: data in memory or as files, and configurations in several forms."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from manyheads.config import Config, load_config
from manyheads.data.hold_out import LAYOUT
from manyheads.data.readers import (
    Layout,
    are_records,
    are_splits,
    in_memory,
    is_column,
    is_data_file,
)
from manyheads.errors import ConfigError, RequestError, listing, option, shorten
from manyheads.inference import Predictor
from manyheads.storage import StrPath
from manyheads.tasks.label_values import is_encodable

_AS_LAYOUT = 'Layout(format=NAME, names={FIELD: "text", OTHER: "label"}, separator=",")'


def named_data(data: Any, name: str, named: ExitStack) -> str:
    """Return the path of data, or a name for records in memory until the stack is closed."""
    if isinstance(data, str | os.PathLike):
        return os.fspath(data)
    return named.enter_context(in_memory(data, name))


def optional_data(data: Any, name: str, named: ExitStack) -> str | None:
    """Return the path or name of data, or None without any."""
    return None if data is None else named_data(data, name, named)


def named_texts(texts: Any, name: str, named: ExitStack) -> str:
    """Return the path or name of texts: strings, pairs of two texts, or any form of records.

    Raises:
        RequestError: they are none of these.
    """
    if is_column(texts) or isinstance(texts, Iterator) or hasattr(texts, "to_list"):
        texts = list(texts)
    if isinstance(texts, list | tuple):
        if all(isinstance(text, str) for text in texts):
            texts = [{"text": text} for text in texts]
        elif all(isinstance(pair, tuple) and [*map(type, pair)] == [str, str] for pair in texts):
            texts = [{"text": text, "text2": second} for text, second in texts]
    return named_data(texts, name, named)


def optional_texts(texts: Any, name: str, named: ExitStack) -> str | None:
    """Return the path or name of texts, or None without any."""
    return None if texts is None else named_texts(texts, name, named)


def is_config(data: Any) -> bool:
    """Return whether an argument is a configuration, or none, rather than data."""
    if isinstance(data, str | os.PathLike):
        return not is_data_file(os.fspath(data))
    return data is None or (
        isinstance(data, Config | Mapping) and not are_splits(data) and not are_records(data)
    )


def only_config(first: Any, config: Any) -> Any:
    """Return the first argument of a verb, a configuration, unless there is another one."""
    if config is not None:
        raise ConfigError(
            "there are two configurations", expected="one", fix="Leave out one of the two."
        )
    return first


def refuse_unused(options: Mapping[str, object], beside: str, *, expected: str) -> None:
    """Refuse options that have no effect beside another one, or without it.

    Args:
        options: those options by name; false where they are not given.
        beside: where they have no effect.
        expected: where they have one.

    Raises:
        RequestError: one is given.
    """
    unused = listing(f"`{name}`" for name, value in options.items() if value)
    if unused:
        raise RequestError(f"{unused} {beside}", expected=expected, fix=f"Leave out {unused}.")


def chosen_prompt(
    predictor: Predictor, embed: bool, name: str | None, prompt: str | None
) -> str | None:
    """Return the prompt that the embedding is to read; None for the encoder's default prompt.

    Args:
        predictor: the model's.
        embed: whether there is an embedding; nothing else reads a prompt.
        name: that of one of the encoder's prompts.
        prompt: the prompt itself.

    Raises:
        RequestError: a prompt is chosen without an embedding, or is none that it can read.
    """
    check_prompt(embed, name, prompt)
    return predictor.prompt_of(name, prompt)


def check_prompt(embed: bool, name: str | None, prompt: str | None) -> None:
    """Check a chosen prompt as far as that needs no model.

    Args:
        embed: whether there is an embedding; nothing else reads a prompt.
        name: that of one of the encoder's prompts.
        prompt: the prompt itself.

    Raises:
        RequestError: a prompt is chosen without an embedding, or is no text.
    """
    given = {option("--prompt-name"): name, option("--prompt"): prompt}
    chosen = {one: value for one, value in given.items() if value is not None}
    if chosen and not embed:
        unused = listing(chosen)
        raise RequestError(
            f"{unused} without {option('--embed')}",
            expected="the embedding, which alone reads a prompt",
            fix=f"Add {option('--embed')}, or leave out {unused}.",
        )
    for one, value in chosen.items():
        if not isinstance(value, str) or not is_encodable(value):
            raise RequestError(
                f"{one} is {shorten(value)}", expected="a text of whole Unicode characters"
            )


def as_config(
    config: Config | StrPath | Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    *,
    stored: bool = False,
) -> Config:
    """Return a configuration with settings laid over it.

    Args:
        config: a configuration, its file, or a mapping of its values; None for the defaults.
        settings: fields that override it.
        stored: whether a run was started with it, which may have settings refused since.

    Raises:
        ConfigError: a key or value is invalid, or `config` is something else.
    """
    if config is None or isinstance(config, str | os.PathLike):
        return load_config(config, settings, stored=stored)
    if isinstance(config, Config):
        if not settings:
            return config
        config = config.model_dump(exclude_unset=True)
    if isinstance(config, Mapping):
        return load_config(None, {**config, **settings}, stored=stored)
    raise ConfigError(
        f"the configuration is {shorten(config)}", expected="a Config, a path or a mapping"
    )


def with_layout(settings: Mapping[str, Any], layout: Layout | None) -> dict[str, Any]:
    """Return settings of a configuration that include how the data are laid out.

    The layout replaces that of a configuration as a whole.

    Raises:
        ConfigError: a setting says so too, or the layout is that of several files.
    """
    if layout is None:
        return dict(settings)
    if layout.own:
        raise ConfigError(
            "`layout` has layouts of single files in `own`", expected="one layout for all files",
            fix="Set the others as `format` and `map` of the tasks with these files.",
        )  # fmt: skip
    if both := [name for name in LAYOUT if name in settings]:
        raise ConfigError(
            f"`layout` is given beside {listing(f'`{name}`' for name in both)}",
            expected="one or the other", fix=f"Say it in `layout` alone: {_AS_LAYOUT}.",
        )  # fmt: skip
    return {**settings, **dict.fromkeys(LAYOUT), "map": {}, **layout.settings()}


def warn(text: str) -> None:
    """Warn the caller of a verb, as the command line does on standard error."""
    warnings.warn(text, stacklevel=2)


def messages(verb: str, progress: bool) -> Callable[[str], None]:
    """Return what writes a verb's messages to standard error, if progress is shown."""

    def tell(text: str) -> None:
        if progress:
            print(f"{verb}: {text}", file=sys.stderr, flush=True)

    return tell
