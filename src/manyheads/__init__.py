"""Manyheads: one sentence encoder, many heads.

    import manyheads

    model = manyheads.train(records, valid=others, num_epochs=3)
    model.predict(["John lives in Paris"])

train       train a model on records in memory or files, and return it
demo        train a small model on the demonstration data
init        write a configuration for labelled files
load        load a trained model: predict, predict_proba, encode, evaluate, save
predict     load a model and predict for texts
info        describe a model from its files
evaluate    score a model on labelled records
report      report what a model gets wrong, as a page
calibrate   calibrate a model's scores
thresholds  find the scores from which enough answers are right
export      add graphs to a model that predict without PyTorch
check       find what is wrong with data
suspects    rank the labels that are likely wrong
select      choose the texts most worth labelling next
formats     the formats of data files by name
convert     write data for a labelling tool, or as JSON lines that train
augment     write data with new sentences, made by exchanging entities
compare     compare joint training with training each task alone
add_head    add a task to a trained model
add_label   add classes or entity types to a trained task
distill     train a smaller or better model on the answers of trained ones
refit       train once more, on the validation records too
push        push a model to the Hugging Face hub
serve       serve models over HTTP
load_config read a configuration

SentenceClassifier is a scikit-learn classifier.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from manyheads.lazy import loader
from manyheads.version import __version__

if TYPE_CHECKING:
    from manyheads.api import (
        add_head,
        add_label,
        augment,
        calibrate,
        check,
        compare,
        convert,
        demo,
        distill,
        evaluate,
        export,
        formats,
        info,
        init,
        load,
        predict,
        push,
        refit,
        report,
        select,
        suspects,
        thresholds,
        train,
    )
    from manyheads.api.estimator import SentenceClassifier
    from manyheads.api.model import Model, TrainedModel
    from manyheads.config import Config, TaskConfig, load_config
    from manyheads.data.readers import Layout
    from manyheads.errors import ManyheadsError
    from manyheads.inference import Predictor
    from manyheads.server import Client, serve

__all__ = [
    "Client",
    "Config",
    "Layout",
    "ManyheadsError",
    "Model",
    "Predictor",
    "SentenceClassifier",
    "TaskConfig",
    "TrainedModel",
    "__version__",
    "add_head",
    "add_label",
    "augment",
    "calibrate",
    "check",
    "compare",
    "convert",
    "demo",
    "distill",
    "evaluate",
    "export",
    "formats",
    "info",
    "init",
    "load",
    "load_config",
    "predict",
    "push",
    "refit",
    "report",
    "select",
    "serve",
    "suspects",
    "thresholds",
    "train",
]

if sys.platform == "win32":  # which has no `flock`
    raise ImportError("Manyheads needs Linux or a similar system. On Windows, install it in WSL 2.")

# Imported when first used, so that the command line answers at once: from `api` but for a few.
__getattr__ = loader(
    __name__,
    {
        "api": __all__,
        "api.estimator": ("SentenceClassifier",),
        "api.model": ("Model", "TrainedModel"),
        "config": ("Config", "TaskConfig", "load_config"),
        "data.readers": ("Layout",),
        "errors": ("ManyheadsError",),
        "inference.predictor": ("Predictor",),
        "server": ("Client", "serve"),
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
