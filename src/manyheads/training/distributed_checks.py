"""Checks of a run in several processes: that it is possible, and that all train the same model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from manyheads.config import Config
from manyheads.errors import ConfigError, RequestError, listing
from manyheads.tasks import kind_of
from manyheads.training.distributed import Processes
from manyheads.training.state import differing_keys


def check_possible(config: Config, processes: Processes) -> None:
    """Refuse settings that need a single process.

    Raises:
        ConfigError: such a setting is set, and there are several processes.
    """
    count, fix = processes.count, "Train in one process, or leave it out."
    if count > 1 and config.balancing.compares_gradients:
        raise ConfigError(
            f"`balancing` is {config.balancing.method}, and there are {count} processes; it "
            "compares the tasks' whole gradients, of which each process has a part",
            expected="static, uncertainty or dwa", fix=fix,
        )  # fmt: skip
    if count > 1 and config.log_gradients is not None:
        raise ConfigError(
            f"`log_gradients` is {config.log_gradients}, and there are {count} processes, each "
            "with a part of the tasks' gradients",
            fix=fix,
        )


def check_alike(processes: Processes, config: Config, facts: Mapping[str, Any]) -> None:
    """Check that all processes train the same model, from the same step, on the same data.

    Args:
        processes: all of them.
        config: this process's configuration.
        facts: further facts of this process to compare, by name, as JSON values.

    Raises:
        RequestError: a process differs from the first.
    """
    own = {"configuration": config.model_dump(mode="json"), **facts}
    first = processes.exchange(own)[0]
    differing = differing_keys(config, first["configuration"], lambda setting: setting.processes)
    differing += [f"other {name}" for name, value in facts.items() if value != first[name]]
    for rank, found in enumerate(processes.exchange(differing)):
        if found:
            raise RequestError(
                f"process {rank} does not train what process 0 does: {'; '.join(found)}",
                expected="the same configuration, data, encoder and checkpoint for all",
                fix="Put `save_dir`, the data and the encoder where every machine finds the same.",
            )


def report_processes(config: Config, processes: Processes, report: Callable[[str], None]) -> None:
    """Report how many processes train the model, if there are several."""
    count = processes.count
    if count == 1:
        return
    report(f"Training in {count} processes, each with its part of every batch.")
    pairs = [n for n, task in config.tasks.items() if kind_of(task.kind).whole_batches]
    if pairs:
        report(
            f"{listing(pairs)}: its pairs are compared within their batch, so that processes take "
            f"whole batches; `gradient_accumulation: {count}` gives each of them one a step."
        )
