"""What `manyheads thresholds` prints of labels with too few answers."""

from __future__ import annotations

import numpy as np
import pytest

from manyheads.display import threshold_tables
from manyheads.evaluation import ThresholdReport, find_thresholds
from manyheads.tasks import Judged


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["a"], "1 label without enough answers has a higher one"),
        (["a", "b"], "2 labels without enough answers have a higher one"),
    ],
)
def test_the_note_counts_the_labels_with_a_higher_threshold(wrong: list[str], told: str) -> None:
    labels = np.array(wrong * 4 + ["good"] * 400, np.object_)
    scores = np.append(np.full(4 * len(wrong), 0.95), np.full(400, 0.9))
    judged = Judged(scores, labels == "good", labels, np.arange(len(labels)))
    found = find_thresholds(judged, 0.9)
    (section,) = threshold_tables(ThresholdReport("model", len(labels), {"intent": found}))
    assert section.note.endswith(told)
