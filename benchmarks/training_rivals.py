"""Common ways to train the same model, for `benchmarks/training.py`.

Both use the same pretrained weights, initial head weights, learning rates and schedule, weight
decay, clipping and dropout as Manyheads, but none of its optimisations.

Axes: B sentences, T tokens, H hidden, L labels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from manyheads.modeling import find_encoder
from manyheads.training import Run
from rival_model import IGNORE, JointModel
from snips import INTENT, SLOTS

Example = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """The result of a run of another system."""

    seconds: float
    """In its loop."""
    steps: int
    tokens: int
    """Real sub-tokens of the sentences that it went through; a sentence whose tasks are trained
    in passes of their own counts once."""


def examples(run: Run) -> list[Example]:
    """Return the tokenised training records as lists, like a tokenizer's output."""
    (data,) = run.data.datasets
    found = []
    for row in range(len(data)):
        ids = data.tokens.row(row).tolist()
        tags = [IGNORE] * len(ids)
        for place, tag in zip(
            data.words.row(row), data.targets[SLOTS].values.row(row), strict=True
        ):
            tags[int(place)] = int(tag)
        label = int(data.targets[INTENT].values.row(row)[0])
        found.append({"input_ids": ids, "label": label, "tags": tags})
    return found


def joint_model(run: Run) -> JointModel:
    """Build the model with the initial weights of Manyheads."""
    source = find_encoder(run.config.model_name)
    labels = run.data.label_sets
    model = JointModel(source.folder, len(labels[INTENT]), len(labels[SLOTS]))
    for theirs, ours in zip(_layers(model), _our_layers(run), strict=True):
        theirs.load_state_dict(ours.state_dict())
    return model


def give_back(model: JointModel, run: Run) -> None:
    """Load the trained weights into a Manyheads model, which scores all systems."""
    run.model.encoder.backbone.load_state_dict(model.encoder.state_dict())
    for theirs, ours in zip(_layers(model), _our_layers(run), strict=True):
        ours.load_state_dict(theirs.state_dict())


def _layers(model: JointModel) -> list[nn.Module]:
    assert model.classes is not None
    assert model.tags is not None
    return [model.classes, model.tags]


def _our_layers(run: Run) -> list[nn.Module]:
    heads: Any = run.model.heads
    return [heads[INTENT].scorer.layers[-1], heads[SLOTS].classifier]


def groups(model: JointModel, run: Run) -> list[dict[str, Any]]:
    """Split the parameters as usual: two rates, and no decay for one-dimensional parameters."""
    config, found = run.config, []
    for of_encoder, rate in ((True, config.learning_rate), (False, config.head_learning_rate)):
        for decayed in (True, False):
            parameters = [
                parameter
                for name, parameter in model.named_parameters()
                if name.startswith("encoder.") == of_encoder and (parameter.ndim > 1) == decayed
            ]
            decay = config.weight_decay if decayed else 0.0
            found.append({"params": parameters, "lr": rate, "weight_decay": decay})
    return found


def warm_then_linear(optimizer: torch.optim.Optimizer, steps: int, run: Run) -> Any:
    """Build the same schedule with the library's function."""
    hub: Any = import_module("transformers")
    warmup = round(run.config.warmup_ratio * steps)
    return hub.get_linear_schedule_with_warmup(optimizer, warmup, steps)


def pad(batch: Sequence[Example], width: int | None = None) -> dict[str, Tensor]:
    """Pad a batch to its longest sentence, or to a width."""

    def rectangle(key: str, fill: int) -> Tensor:
        padded = pad_sequence(
            [torch.tensor(e[key]) for e in batch], batch_first=True, padding_value=fill
        )
        missing = 0 if width is None else width - padded.shape[1]
        return nn.functional.pad(padded, (0, missing), value=fill)

    lengths = torch.tensor([len(e["input_ids"]) for e in batch])
    ids = rectangle("input_ids", 0)
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long(),
        "label": torch.tensor([e["label"] for e in batch]),
        "tags": rectangle("tags", IGNORE),
    }


def plain_loop(run: Run, max_steps: int | None = None) -> Trained:
    """Train like most scripts: padded to `max_length`, float32, one pass per task.

    Args:
        run: what to train on, and how.
        max_steps: number of batches, if only the speed is measured.
    """
    config = run.config
    model = joint_model(run)
    loader: Any = DataLoader(
        examples(run),  # type: ignore[arg-type]
        batch_size=config.batch_size,
        shuffle=True,
        collate_fn=lambda batch: pad(batch, run.max_length),
        generator=torch.Generator().manual_seed(config.seed),
    )
    optimizer = torch.optim.AdamW(groups(model, run))
    schedule = warm_then_linear(optimizer, config.epochs * len(loader), run)
    torch.manual_seed(config.seed)
    model.train()
    tokens = steps = 0
    began = time.perf_counter()
    for batch in _cycle(loader, config.epochs, max_steps):
        for task in ("label", "tags"):
            inputs = {key: batch[key] for key in ("input_ids", "attention_mask", task)}
            model(**inputs)["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        steps += 1
        tokens += int(batch["attention_mask"].sum())
    seconds = time.perf_counter() - began
    give_back(model, run)
    return Trained(seconds, steps, tokens)


def _cycle(loader: Any, epochs: int, most: int | None) -> Iterator[dict[str, Tensor]]:
    done = 0
    for _ in range(epochs):
        for batch in loader:
            if done == most:
                return
            done += 1
            yield batch


def hf_trainer(run: Run, folder: str) -> Trained:
    """Train with transformers' `Trainer`, both losses in one pass, padded to the longest."""
    hub: Any = import_module("transformers")
    config = run.config
    model, data = joint_model(run), examples(run)
    arguments = hub.TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=config.batch_size,
        num_train_epochs=config.epochs,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    steps = config.epochs * -(-len(data) // config.batch_size)
    # The library's own default optimiser, with the two learning rates.
    optimizer = torch.optim.AdamW(groups(model, run), fused=True)
    trainer = hub.Trainer(
        model=model,
        args=arguments,
        train_dataset=data,
        data_collator=pad,
        optimizers=(optimizer, warm_then_linear(optimizer, steps, run)),
    )
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    give_back(model, run)
    tokens = config.epochs * sum(len(example["input_ids"]) for example in data)
    return Trained(seconds, trainer.state.global_step, tokens)
