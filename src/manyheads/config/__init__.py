"""The configuration schema for YAML files, flags and Python."""

from __future__ import annotations

from manyheads.config.checks import first_problem, unread_settings
from manyheads.config.fields import AUTO, May, Setting, Strict, WarmStart, fields_where, setting_of
from manyheads.config.loading import load_config, make_config, stored_config
from manyheads.config.options import NESTED, Balancing, KeepEmbeddings, Lora, Teacher, is_soft_file
from manyheads.config.reference import (
    Group,
    Key,
    default_at,
    describe,
    key_groups,
    literals,
    setting_at,
    written,
)
from manyheads.config.run import ALIASES, BATCH_TOKENS, Config
from manyheads.config.sections import DEFAULT_MODEL, SECTIONS
from manyheads.config.sections.mixing import colliding_tasks
from manyheads.config.task import TaskConfig
from manyheads.config.threads import (
    available_cores,
    kept_threads,
    restored_threads,
    undo_threads,
)
from manyheads.config.writing import config_text, write_config

__all__ = [
    "ALIASES",
    "AUTO",
    "BATCH_TOKENS",
    "DEFAULT_MODEL",
    "NESTED",
    "SECTIONS",
    "Balancing",
    "Config",
    "Group",
    "KeepEmbeddings",
    "Key",
    "Lora",
    "May",
    "Setting",
    "Strict",
    "TaskConfig",
    "Teacher",
    "WarmStart",
    "available_cores",
    "colliding_tasks",
    "config_text",
    "default_at",
    "describe",
    "fields_where",
    "first_problem",
    "is_soft_file",
    "kept_threads",
    "key_groups",
    "literals",
    "load_config",
    "make_config",
    "restored_threads",
    "setting_at",
    "setting_of",
    "stored_config",
    "undo_threads",
    "unread_settings",
    "write_config",
    "written",
]
