"""Count the records whose labels a training would refuse, while they are written elsewhere."""

from __future__ import annotations

from manyheads.config import TaskConfig
from manyheads.data.infer_tasks import DEFAULT_TASKS, TaskFinder, tasks_to_read
from manyheads.data.readers import Row
from manyheads.data.records import LabelCollector, labelled_field, read_text
from manyheads.errors import DataError, ManyheadsError, counted, option
from manyheads.tasks import kind_of
from manyheads.tasks.kinds import RawRecord


class _Trial:
    """What reading the labels of one task has found so far."""

    def __init__(self, name: str, task: TaskConfig) -> None:
        self.name, self.task = name, task
        self.filled = self.refused = 0
        """Records with a label that is not empty, and those whose label is refused."""
        self.first: DataError | None = None
        """The error of the first of these."""
        self._collector = LabelCollector(name, task)
        self._read = kind_of(task.kind).reader(name, task, None, keeps_unseen=True)

    def add(self, row: Row, record: RawRecord) -> None:
        """Read a record's label, if it has one."""
        field = labelled_field(row, self.name, self.task)
        if field is None:
            return
        try:
            self.filled += bool(self._read(record, field))
            self._collector.add(row, record.text, record.tokens)
        except DataError as error:
            self.refused += 1
            self.first = self.first or error

    def judge(self, source: str) -> None:
        """Refuse all labels if they make no set together, such as tags of an unclear scheme."""
        if self.refused or not self.filled:
            return
        try:
            self._collector.labels([source])
        except DataError as error:
            self.refused, self.first = self.filled, error


class RefusedLabels:
    """Reads the labels in the usual fields of records as a training without configuration does."""

    def __init__(self) -> None:
        self._records = 0
        self._finder = TaskFinder()
        self._trials = {name: _Trial(name, task) for name, task in DEFAULT_TASKS.items()}

    def add(self, row: Row) -> None:
        """Read a record's labels.

        Raises:
            DataError: it has no text.
        """
        text, tokens = read_text(row)
        record = RawRecord(row.fields, text, tokens, row.where)
        self._records += 1
        self._finder.add(row, text, tokens)
        for trial in self._trials.values():
            trial.add(row, record)

    def message(self, source: str, target: str) -> str:
        """Return a message about the labels that would be refused; empty if there are none.

        Args:
            source: the file that was read.
            target: the file that was written.
        """
        tasks = tasks_to_read(self._finder.tasks([source], on_error=_ignore))
        refusing = []
        for name, trial in self._trials.items():
            # The field may hold the labels of another kind, such as numbers.
            if name in tasks and tasks[name].kind == trial.task.kind:
                trial.judge(source)
                refusing += [trial] * (trial.first is not None)
        if not refusing or (error := refusing[0].first) is None:
            return ""
        count = min(sum(trial.refused for trial in refusing), self._records)
        checked = option(f"manyheads data check {target}", f"`manyheads.check({target!r})`")
        return (
            f"training would refuse the labels of {counted(count, 'record')}, such as "
            f"{error.where}: {error.found}; {checked} lists them"
        )


def _ignore(error: ManyheadsError) -> None:
    """Leave a field out that fits several kinds of task."""
