"""The decision of `word_features: auto`: whether new heads read the shape of words."""

from __future__ import annotations

from collections.abc import Collection

from manyheads.config import AUTO, Config
from manyheads.modeling import CheckpointContents
from manyheads.tasks import kind_of
from manyheads.text import TextTokenizer

OPTION = "word_features"


def decide_word_features(
    config: Config,
    tokenizer: TextTokenizer,
    found: CheckpointContents | None,
    trained: Collection[str],
) -> Config:
    """Replace `word_features: auto` by on if the encoder lower-cases, and by off otherwise.

    Heads that were trained before this option existed keep `auto`, and read no features.

    Args:
        config: the run.
        tokenizer: the encoder's tokenizer.
        found: the checkpoint that the run continues from; its choice is kept.
        trained: the tasks whose heads come from a trained model; its choice is kept.
    """
    stored = {} if found is None else found.config["tasks"]
    default = "on" if tokenizer.lower_cases else "off"

    def chosen(name: str) -> str:
        if name in trained:
            return config.tasks[name].word_features
        return str(stored[name].get(OPTION, AUTO)) if name in stored else default

    tasks = {
        name: task.model_copy(update={OPTION: chosen(name)})
        if task.word_features == AUTO and OPTION in kind_of(task.kind).options
        else task
        for name, task in config.tasks.items()
    }
    return config.model_copy(update={"tasks": tasks})
