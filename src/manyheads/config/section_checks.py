"""Combinations of settings of one section that are refused: one row a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from manyheads.config.fields import Strict, default_of, fields_where
from manyheads.tasks import kind_of, known_kinds

if TYPE_CHECKING:
    from manyheads.config.options import Balancing
    from manyheads.config.task import TaskConfig

S = TypeVar("S", bound=Strict)


@dataclass(frozen=True)
class Check(Generic[S]):
    """A rule about settings of one section."""

    name: str
    broken: Callable[[S], bool]
    message: Callable[[S], str]


def accepted(section: S, checks: Iterable[Check[S]]) -> S:
    """Return a section that breaks none of the rules.

    Raises:
        ValueError: with the message of the first rule that it breaks.
    """
    for check in checks:
        if check.broken(section):
            raise ValueError(check.message(section))
    return section


def changed(section: Strict, options: Iterable[str]) -> list[str]:
    """Return the options of a section that do not have their defaults."""
    return [name for name in options if getattr(section, name) != default_of(type(section), name)]


NECK = ("neck_size", "neck_layers")

TASK_CHECKS: tuple[Check[TaskConfig], ...] = (
    Check(
        "labels fit their number",
        # Labels of words may be listed as entity types, each of which makes two tags.
        lambda t: (
            t.num_labels is not None
            and not kind_of(t.kind).per_word
            and len(t.labels or ()) > t.num_labels
        ),
        lambda t: f"there are {len(t.labels or ())} `labels`, but `num_labels` is {t.num_labels}",
    ),
    Check(
        "a range ascends",
        lambda t: not t.score_range[0] < t.score_range[1],
        lambda t: f"`score_range` is {list(t.score_range)}, not a lower and a higher score",
    ),
    Check(
        "options are those of the kind",
        lambda t: bool(_foreign(t)),
        lambda t: f"`{_foreign(t)[0]}` is for {' and '.join(_takers(_foreign(t)[0]))} tasks only",
    ),
    Check(
        "only an output layer is fitted",
        lambda t: t.start == "fitted" and t.hidden is not None,
        lambda t: (
            f"`hidden` is {t.hidden}, and `start: fitted` is for heads without a hidden layer; "
            "leave out one of them"
        ),
    ),
    Check(
        "a layout of a task's own is for its own files",
        lambda t: t.train_file is None and t.valid_file is None and bool(_own_layout(t)),
        lambda t: (
            f"`{_own_layout(t)[0]}` is for the task's own files, and it has none; set its "
            f"`train_file` or `valid_file`, or `{_own_layout(t)[0]}` for all files"
        ),
    ),
    Check(
        "options of a neck need one",
        lambda t: t.neck == "none" and bool(changed(t, NECK)),
        lambda t: f"`{changed(t, NECK)[0]}` needs a `neck`",
    ),
)


def _of_method(option: str, method: str) -> Check[Balancing]:
    return Check(
        f"{option} is for {method}",
        lambda b: getattr(b, option) is not None and b.method != method,
        lambda b: (
            f"`{option}` is {getattr(b, option):g}, but `method` is {b.method!r}; it is for "
            f"{method}"
        ),
    )


BALANCING_CHECKS: tuple[Check[Balancing], ...] = (
    _of_method("temperature", "dwa"),
    _of_method("alpha", "gradnorm"),
    _of_method("learning_rate", "gradnorm"),
    _of_method("c", "cagrad"),
)


def _takers(option: str) -> list[str]:
    """Return the kinds of tasks that have an option."""
    return [name for name in known_kinds() if option in kind_of(name).options]


def _foreign(task: TaskConfig) -> list[str]:
    """Return the options that are set and that only other kinds have."""
    own = kind_of(task.kind).options
    return [n for n in changed(task, type(task).model_fields) if n not in own and _takers(n)]


def _own_layout(task: TaskConfig) -> list[str]:
    """Return the settings that say how the task's own files are laid out."""
    return changed(task, fields_where(type(task), lambda setting: setting.layout))
