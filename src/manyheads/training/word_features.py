"""Whether new heads read what words look like: `word_features: auto` becomes on or off."""

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
    """Replace `word_features: auto` by on where the encoder lower-cases, and by off elsewhere.

    Heads of models that were trained before there was such a choice keep `auto`, and read none.

    Args:
        config: the run.
        tokenizer: the encoder's.
        found: the checkpoint that the run continues from, whose choice stands.
        trained: the tasks whose heads are of a trained model, with its choice.
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
