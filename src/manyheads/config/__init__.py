"""The configuration: one schema for the YAML file, the flags and Python."""

from __future__ import annotations

from manyheads.config.loading import INPUT_PATHS, load_config, make_config
from manyheads.config.messages import literals
from manyheads.config.options import COMPARING, NESTED, Balancing, KeepEmbeddings, Lora
from manyheads.config.run import ALIASES, BATCH_TOKENS, DEFAULT_MODEL, Config
from manyheads.config.task import DEFAULT_FIELDS, TaskConfig, TaskKind
from manyheads.config.threads import available_cores

__all__ = [
    "ALIASES",
    "BATCH_TOKENS",
    "COMPARING",
    "DEFAULT_FIELDS",
    "DEFAULT_MODEL",
    "INPUT_PATHS",
    "NESTED",
    "Balancing",
    "Config",
    "KeepEmbeddings",
    "Lora",
    "TaskConfig",
    "TaskKind",
    "available_cores",
    "literals",
    "load_config",
    "make_config",
]
