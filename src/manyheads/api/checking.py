"""The data check with a configuration: its files, tasks and encoder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from manyheads.config import Config, TaskConfig
from manyheads.data.check import DataReport, check_data
from manyheads.data.readers import Layout
from manyheads.errors import ModelError, RequestError, option

if TYPE_CHECKING:
    from manyheads.text import TextTokenizer

Tell = Callable[[str], None]


def check_files(
    files: Sequence[str],
    config: Config | None,
    tasks: Mapping[str, TaskConfig] | None,
    max_length: int | None,
    *,
    limit: int,
    layout: Layout | None,
    tell: Tell = warnings.warn,
) -> DataReport:
    """Check data files, or those of a configuration.

    Args:
        files: the files, those for training first; without any, those of the configuration.
        config: names tasks, encoder and files.
        tasks: the tasks; default, those of the configuration, or what training finds in the files.
        max_length: sub-tokens that training reads; default, as configured.
        limit: how many findings of a kind are listed for a file.
        layout: how the files are laid out; default, as configured.
        tell: takes a note about what is not checked.

    Raises:
        RequestError: there are neither files nor a configuration, or it trains on what it
            validates on.
        DataError: a file is missing, empty, of no known format, or given twice.
    """
    wanted = tasks or (config.tasks if config else None) or None
    paths = files or (None if config is None else _files_of(config, wanted or {}))
    if paths is None:
        raise RequestError(
            "no data is named",
            expected="files",
            fix=f"Name them, or {option('--config CONFIG')} that does.",
        )
    if layout is None and config is not None:
        layout = Layout.of(config)
    config = config and _started_from(config)
    length = max_length or (config or Config()).max_length
    return check_data(paths, wanted, _tokenizer(config, tell), length, layout=layout, limit=limit)


def _files_of(settings: Config, wanted: Mapping[str, TaskConfig]) -> Mapping[str, Sequence[str]]:
    """Return the configuration's files with the tasks they are for, training first."""
    if settings.files is not None:
        validation_file = [] if settings.valid_file is None else [settings.valid_file]
        return {path: tuple(wanted) for path in (*settings.files, *validation_file)}
    training, own = settings.train_files(), dict(settings.tasks)
    for name in settings.unvalidated_tasks:
        del own[name]
    validation = settings.model_copy(update={"tasks": own}).valid_files()
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


def _tokenizer(settings: Config | None, tell: Tell) -> TextTokenizer | None:
    """Return the encoder's tokenizer, or report why truncation is not checked."""
    from manyheads.modeling import TOKENIZER, find_encoder, packaged_encoder
    from manyheads.text import TextTokenizer

    try:
        # Without a configuration, no encoder is fetched from anywhere.
        if settings is None and packaged_encoder() is None:
            raise ModelError(
                "no encoder is named", fix=f"Name one in a {option('--config CONFIG')}."
            )
        settings = settings or Config()
        source = find_encoder(settings.model_name, settings.pooling)
        return TextTokenizer.from_json(source.files[TOKENIZER].decode(), where=str(source.folder))
    except ModelError as error:
        tell(f"truncation is not checked: {error}")
        return None
