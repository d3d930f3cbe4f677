"""The report of a data check: findings, and a summary of every file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from manyheads.errors import counted


class Severity(str, Enum):
    """How much a finding matters."""

    ERROR = "error"
    """Training would fail, learn something wrong, or be measured wrongly."""
    WARNING = "warning"
    """Probably unintended, but harmless or repaired."""
    NOTE = "note"
    """How something was read."""


class Kind(str, Enum):
    """The kind of a finding."""

    BROKEN_FILE = "broken file"
    BROKEN_RECORD = "broken record"
    LABELS = "labels"
    NO_LABEL = "no label"
    CONTRADICTION = "contradiction"
    LEAK = "leak"
    CUT_WORD = "cut word"
    NO_WORD = "no word"
    LOST_LABEL = "lost label"
    INSIDE_START = "starts with I-"
    DUPLICATE = "duplicate"
    UNLABELLED = "unlabelled"
    WHITE_SPACE = "white space"
    TRUNCATED = "truncated"
    UNSEEN_LABEL = "unseen label"
    ALIKE = "alike"
    ONE_CLASS = "one class"
    NO_ENTITY = "no entity"
    AMBIGUOUS = "ambiguous field"
    JOINED = "joined classes"
    DOUBLED = "doubled task"
    SCHEME = "scheme"
    UNREAD = "unread"
    REPEATED = "repeated entity"
    PIECES = "pieces of words"
    UNKNOWN_SCRIPT = "unknown script"

    @property
    def severity(self) -> Severity:
        """How much findings of this kind matter."""
        if self in _WARNINGS:
            return Severity.WARNING
        return Severity.NOTE if self in _NOTES else Severity.ERROR


_WARNINGS = frozenset(
    {
        Kind.DUPLICATE,
        Kind.UNLABELLED,
        Kind.WHITE_SPACE,
        Kind.TRUNCATED,
        Kind.UNSEEN_LABEL,
        Kind.ALIKE,
        Kind.ONE_CLASS,
        Kind.NO_ENTITY,
        Kind.AMBIGUOUS,
        Kind.JOINED,
        Kind.DOUBLED,
        Kind.UNKNOWN_SCRIPT,
    }
)
_NOTES = frozenset({Kind.SCHEME, Kind.UNREAD, Kind.REPEATED, Kind.PIECES})


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem or remark, its place, and the fix."""

    kind: Kind
    where: str
    message: str
    fix: str = ""

    @property
    def severity(self) -> Severity:
        """How much it matters."""
        return self.kind.severity

    def to_json(self) -> dict[str, str]:
        """Return the finding as a JSON object."""
        return {
            "severity": self.severity.value,
            "kind": self.kind.value,
            "where": self.where,
            "message": self.message,
            "fix": self.fix,
        }


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of a file's texts; every figure except the mean is a length that occurs."""

    mean: float
    median: int
    p90: int
    p95: int
    p99: int
    longest: int

    @classmethod
    def of(cls, lengths: ArrayLike) -> Lengths:
        """Summarise lengths, [N] integers."""
        values = np.asarray(lengths, np.int64)
        if not values.size:
            return cls(0.0, 0, 0, 0, 0, 0)
        shares = (50, 90, 95, 99, 100)
        figures = np.percentile(values, shares, method="inverted_cdf").astype(int).tolist()
        return cls(float(values.mean()), *figures)


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """The labels of one task in a file."""

    kind: str
    labelled: int
    """Records with a label, which may be an empty list of labels or entities."""
    unlabelled: int
    labels: Mapping[str, int]
    """How often each label occurs, the most frequent first; for tags, entities by type."""
    with_label: int
    """Records with at least one label or entity."""


@dataclass(frozen=True, slots=True)
class FileSummary:
    """The contents of one file."""

    path: str
    records: int
    """Records that could be read."""
    broken: int
    """Records that could not."""
    complete: bool
    """Whether the file was read to its end."""
    tasks: Mapping[str, TaskSummary]
    words: Lengths
    tokens: Lengths | None
    """Sub-tokens, special ones included; None without a tokenizer."""
    truncated: int
    """Records that are longer than `max_length` sub-tokens."""
    words_lost: int
    """Words beyond `max_length`."""
    labels_lost: int
    """Entities and labelled tokens that are cut or lost as a result."""
    duplicates: int
    """Records whose text occurs before in the same file."""
    leaks: int
    """Records whose text occurs in a file before this one."""


@dataclass(frozen=True, slots=True, repr=False)
class DataReport:
    """The result of a data check."""

    files: tuple[FileSummary, ...]
    findings: tuple[Finding, ...]
    """The first of each kind in each file; `counts` has all."""
    counts: Mapping[Kind, int]
    """How many findings of each kind there are, those that are not listed included."""
    max_length: int | None
    """Sub-tokens that training would read of a record; None without a tokenizer."""

    def __repr__(self) -> str:
        numbers = (counted(self.count(one), one.value) for one in Severity)
        lines = [f"DataReport({', '.join(numbers)})"]
        for file in self.files:
            tasks = "; ".join(f"{n}: {t.labelled:,} labelled" for n, t in file.tasks.items())
            lines.append(f"  {file.path}: {file.records:,} records" + (f"; {tasks}" * bool(tasks)))
        for one in self.findings:
            fix = f" {one.fix}" if one.fix else ""
            lines.append(f"  {one.severity.value}: {one.where}: {one.message}.{fix}")
        return "\n".join(lines)

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings and notes do not count."""
        return not self.count(Severity.ERROR)

    @property
    def unlisted(self) -> Mapping[Kind, int]:
        """How many findings of each kind are counted but not listed."""
        listed = Counter(finding.kind for finding in self.findings)
        return {k: n - listed[k] for k, n in self.counts.items() if n > listed[k]}

    def count(self, severity: Severity) -> int:
        """Count the findings of a severity, those that are not listed included."""
        return sum(count for kind, count in self.counts.items() if kind.severity is severity)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "ok": self.ok,
            "max_length": self.max_length,
            "counts": {kind.value: count for kind, count in self.counts.items()},
            "findings": [finding.to_json() for finding in self.findings],
            "files": [asdict(file) for file in self.files],
        }


class Findings:
    """Collects findings: the first of each kind in each file, and their numbers."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: Counter[tuple[str, Kind]] = Counter()
        self.listed: list[Finding] = []

    def add(self, path: str, kind: Kind, where: str, message: str, fix: str = "") -> None:
        """Add a finding in a file."""
        self._counts[path, kind] += 1
        if self._counts[path, kind] <= self._limit:
            self.listed.append(Finding(kind, where, message, fix))

    def add_unlisted(self, path: str, kind: Kind, count: int) -> None:
        """Count findings without listing them."""
        self._counts[path, kind] += count

    def count(self, path: str, kind: Kind) -> int:
        """Count the findings of a kind in a file."""
        return self._counts[path, kind]

    def counts(self) -> dict[Kind, int]:
        """Count the findings of each kind."""
        total: Counter[Kind] = Counter()
        for (_, kind), count in self._counts.items():
            total[kind] += count
        return dict(total)
