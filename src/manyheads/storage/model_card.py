"""The README.md of a model folder: what the model does, how well, and how to load it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from manyheads.errors import counted
from manyheads.storage.embedding import Reading

MAX_LABELS = 40
MAX_CELL = 60

_TEMPLATE = """\
# A sentence encoder with {count}

{origin} was trained by Manyheads {version} together with {heads}.
One forward pass computes all results for a sentence: {tasks}, and its embedding.

## Tasks

{task_table}

## Scores

{scores}

<!-- calibration -->
{calibration}
<!-- end of calibration -->

## Use

This folder is at once a Manyheads model, a sentence-transformers model and a transformers
checkpoint. With Manyheads, for all of its tasks:

```sh
pip install -e ".[train]"   # in a checkout of Manyheads
manyheads predict path/to/this/folder "A sentence of your own."
```

```python
from manyheads import load

model = load("path/to/this/folder")
print(model.predict(["A sentence of your own."]))
```

With sentence-transformers, for its embeddings:

```python
from sentence_transformers import SentenceTransformer

embeddings = SentenceTransformer("path/to/this/folder").encode(["A sentence of your own."])
```

With transformers, for the encoder alone:

```python
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
encoder = AutoModel.from_pretrained("path/to/this/folder")
```

The heads read up to {max_length} tokens at once, and longer texts in overlapping windows. A text's
embedding has {embedding_size} numbers: {pooling}. It reads the first
{reads} tokens of the text{prompt}, and is made to be compared by {similarity}.
No file here is a pickle, and none can run code. `manyheads.json` holds the checksums of all others
but this one, which you may edit.
"""

_POOLING = {
    "mean": "the mean of its tokens' vectors",
    "cls": "the vector of its first token",
    "max": "the largest of its tokens' vectors, number by number",
    "mean_sqrt_len_tokens": "the sum of its tokens' vectors over the square root of their number",
    "weightedmean": "the mean of its tokens' vectors, the later the heavier",
    "lasttoken": "the vector of its last token",
}

_SIMILARITIES = {
    "cosine": "cosine",
    "dot": "dot product",
    "euclidean": "Euclidean distance",
    "manhattan": "Manhattan distance",
}


def model_card(
    *,
    tasks: Sequence[Mapping[str, Any]],
    tags: Iterable[str],
    metrics: Mapping[str, Any],
    base_model: str | None,
    version: str,
    pooling: str,
    normalize: bool,
    max_length: int,
    embedding_size: int,
    reading: Reading,
    dense: bool = False,
) -> str:
    """Write a model card in Markdown, with the front matter that model hubs read.

    Args:
        tasks: each task's `name`, `kind` and `labels` (or a text to write in their place).
        tags: the names that model hubs have for such tasks.
        metrics: scores in the form of `evaluate --json`; may be empty.
        base_model: the encoder that training started from, as the configuration names it.
        version: the version of Manyheads.
        pooling: how token vectors are combined into the embedding.
        normalize: whether the embedding has length one.
        max_length: tokens that the heads read at once.
        embedding_size: length of the embedding.
        reading: the part of a text that its embedding reads.
        dense: whether linear layers follow the pooling.
    """
    body = _TEMPLATE.format(
        count="one head" if len(tasks) == 1 else f"{len(tasks)} heads",
        origin=f"The encoder {_cell(base_model)}" if base_model else "This encoder",
        version=_cell(version),
        heads="its head" if len(tasks) == 1 else "all of its heads",
        tasks=", ".join(_cell(task["name"]) for task in tasks),
        task_table=_tasks(tasks),
        scores=_scores(metrics),
        calibration=calibration_words({}),
        pooling=_embedding(pooling, dense=dense, normalize=normalize),
        max_length=max_length,
        embedding_size=embedding_size,
        reads=reading.max_length or max_length,
        prompt=f" behind the prompt `{_cell(reading.prompt)}`" if reading.prompt else "",
        similarity=_SIMILARITIES[reading.similarity],
    )
    return f"---\n{_front_matter(tags, base_model)}---\n\n{body}"


def _tasks(tasks: Sequence[Mapping[str, Any]]) -> str:
    rows = ([_cell(t["name"]), _cell(t["kind"]), _labels(t["labels"])] for t in tasks)
    return _table(["task", "kind", "labels"], rows)


def _embedding(pooling: str, *, dense: bool, normalize: bool) -> str:
    """Describe how the embedding is made."""
    vectors = " and ".join(_POOLING[mode] for mode in pooling.split("+"))
    layer = ", through a linear layer" if dense else ""
    return f"{vectors}{layer}{', scaled to length one' if normalize else ''}"


def with_calibration(card: str, calibration: Mapping[str, Any]) -> str:
    """Replace the part of a model card about calibration, unless the user removed its markers."""
    begin, end = "<!-- calibration -->\n", "\n<!-- end of calibration -->"
    before, found, rest = card.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        return card
    return f"{before}{begin}{calibration_words(calibration)}{end}{after}"


def calibration_words(calibration: Mapping[str, Any]) -> str:
    """Describe a manifest's calibration in a few lines of Markdown."""
    tasks = calibration.get("tasks", {})
    if not tasks:
        return "The scores of predictions are not calibrated."
    lines = ["The scores of predictions are calibrated. Calibration error before and after:", ""]
    for name, fitted in tasks.items():
        error = f"{fitted['ece_before']:.3f} and {fitted['ece']:.3f}"
        lines.append(f"- {_cell(name)}: {error}, on {_cell(fitted['source'])}")
        if limits := fitted.get("thresholds"):
            lines[-1] += f"; thresholds for a precision of {limits['precision']:g}"
    return "\n".join(lines)


def _front_matter(tags: Iterable[str], base_model: str | None) -> str:
    matter: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "feature-extraction",
        "tags": ["manyheads", "sentence-transformers", "transformers", *sorted(set(tags))],
    }
    # Only what can be a name on a hub: a path would disclose the training machine's layout.
    if base_model and re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", base_model, re.ASCII):
        matter["base_model"] = base_model
    text: str = yaml.safe_dump(matter, sort_keys=False)
    return text


def _scores(metrics: Mapping[str, Any]) -> str:
    """Make a table of every score that is one number; the rest is in `manyheads.json`."""
    if (before := metrics.get("before_refit")) is not None:
        return (
            "This model has learned from all labelled records, and none was left to score it on. "
            "The model before, which had not learned from the validation records, has these "
            "scores.\n\n" + _scores(before)
        )
    rows = [
        [_cell(task), _cell(metric), f"{value:.4f}"]
        for task, scores in metrics.get("tasks", {}).items()
        for metric, value in scores.items()
        if isinstance(value, float)
    ]
    if isinstance(metrics.get("frame_accuracy"), float):
        rows.append(["all", "frame accuracy", f"{metrics['frame_accuracy']:.4f}"])
    drift = metrics.get("drift")
    if isinstance(drift, Mapping):
        names = {"cosine": "cosine", "similarity_correlation": "correlation of similarities"}
        rows += [
            ["the embedding, compared with before training", name, f"{drift[key]:.4f}"]
            for key, name in names.items()
            if isinstance(drift.get(key), float)
        ]
    if not rows:
        return "None were recorded."
    records = metrics.get("records")
    data = (
        f"the validation data ({counted(records, 'record')})"
        if isinstance(records, int)
        else "the validation data"
    )
    return f"On {data}; shares are between 0 and 1.\n\n{_table(['task', 'metric', 'value'], rows)}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _labels(labels: Sequence[str] | str) -> str:
    if isinstance(labels, str):
        return labels
    shown = ", ".join(_cell(label) for label in labels[:MAX_LABELS])
    return shown if len(labels) <= MAX_LABELS else f"{shown}, ... ({len(labels)} in all)"


def _cell(value: object) -> str:
    """Write a name so that Markdown shows it as plain text, whatever it contains."""
    text = str(value)
    text = text if len(text) <= MAX_CELL else f"{text[:MAX_CELL]}..."
    text = re.sub(r"[\x00-\x20\x7f-\xa0\u2028\u2029]+", " ", text).strip()
    text = text.encode("utf-8", "replace").decode("utf-8")
    return re.sub(r"([\\`*_\[\]<>|#&~$!])", r"\\\1", text)
