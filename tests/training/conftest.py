"""A teacher that the tests of this folder share."""

from __future__ import annotations

import pytest

from manyheads.training import TrainResult
from teachers import CRF_TASKS
from training_setup import encoder_folder, run


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A teacher with a CRF and an encoder of another family, never to be changed."""
    folder = tmp_path_factory.mktemp("teacher")
    model = str(encoder_folder("roberta"))
    return run(folder, model_name=model, tasks=CRF_TASKS, schedule="joint", num_epochs=3)[0]
