"""A kind of task from outside the package, in one file, works with every command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from manyheads.api import evaluate, load
from manyheads.cli import main
from manyheads.config import TaskConfig, load_config
from manyheads.data.records import Record
from manyheads.errors import ConfigError, DataError, ModelError, shorten
from manyheads.exporting import export_model
from manyheads.inference.ray.tables import result_columns, result_schema
from manyheads.modeling import EncoderShape, Features, Head
from manyheads.modeling.heads import TaggingHead, head_class
from manyheads.modeling.heads.layer_mix import TokenReader
from manyheads.tasks import (
    FieldValues,
    Kind,
    LabelSet,
    Prediction,
    Result,
    TagSet,
    TaskSpec,
    kind_of,
    register_kind,
)
from manyheads.tasks.kinds import UNLABELLED, RawRecord, ReadLabel, ReadText, Settings, registry
from manyheads.tasks.kinds.tagging import Tagging
from manyheads.tasks.metrics import spearman
from manyheads.tasks.suspicion import Suspicion, class_suspicion
from manyheads.training.frozen_heads import FrozenHeads
from manyheads.training.suspects import find_suspects
from training_setup import PLACES, config, run, sentences, write_records


@dataclass(frozen=True)
class StarsResult(Result):
    """The number of stars of a text; None without words."""

    stars: float | None

    def to_json(self) -> dict[str, Any]:
        return {"stars": self.stars}

    def ids(self) -> str:
        return str(self.stars)

    def words(self) -> str:
        return "no stars" if self.stars is None else f"{self.stars:.1f} stars"

    def decision(self) -> object:
        return None

    def scores(self) -> Sequence[float]:
        return ()


class StarsHead(Head):
    """One number per sentence; its loss is the mean squared error."""

    kind = "stars"

    def __init__(self, labels: LabelSet, hidden_size: int) -> None:
        super().__init__(labels, reads_all_layers=False)
        self.output = nn.Linear(hidden_size, 1)

    @property
    def reads(self) -> Literal["sentence"]:
        return "sentence"

    @classmethod
    def from_config(cls, config: TaskConfig, labels: LabelSet, encoder: EncoderShape) -> StarsHead:
        return cls(labels, encoder.hidden_size)

    def logits(self, features: Features) -> Tensor:
        stars: Tensor = self.output(features.sentence.float())
        return stars

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        known = targets != -100
        errors = (logits[:, 0] - targets).masked_fill(~known, 0.0)
        return errors.square().sum() / known.sum().clamp(min=1)


@register_kind
class Stars(Kind):
    """One number per sentence: a rating in stars."""

    name = "stars"
    fields = ("stars",)
    head = StarsHead
    options = ()
    metrics = ("spearman",)
    main_metric = "spearman"
    decides = False
    table_columns: ClassVar[Mapping[str, str]] = {"spearman": "spearman", "mae": "mae"}

    def reader(
        self, task: str, settings: Settings, known: LabelSet | None, keeps_unseen: bool
    ) -> ReadLabel:
        def read(record: RawRecord, field: str) -> float:
            value = record.fields[field]
            if type(value) not in (int, float):
                raise DataError(
                    f"`{field}` is {shorten(value)}", where=record.where, expected="a number"
                )
            return float(value)

        return read

    def target_type(self, labels: LabelSet) -> type[np.number[Any]]:
        return np.float32

    def target(
        self, label: Any, words: NDArray[Any], labels: LabelSet, settings: Settings
    ) -> Sequence[float]:
        return [-100.0 if label is None else label]

    def decode(self, spec: TaskSpec, logits: Any, lengths: Any, learned: Any) -> Any:
        return logits[:, 0]

    def results(self, spec: TaskSpec, texts: Sequence[ReadText], decoded: Any) -> list[Result]:
        return [StarsResult(stars) for stars in decoded.tolist()]

    def no_result(self, spec: TaskSpec, text: ReadText) -> Result:
        return StarsResult(None)

    def columns(self, spec: TaskSpec) -> type[float]:
        return float

    def cell(self, spec: TaskSpec, result: StarsResult) -> float | None:
        return result.stars

    def outcome(
        self, spec: TaskSpec, label: Any, tokens: Any, result: StarsResult
    ) -> tuple[float, float]:
        return label, result.stars or 0.0

    def measure(
        self, spec: TaskSpec, gold: Sequence[float], predicted: Sequence[float]
    ) -> Mapping[str, float]:
        errors = np.abs(np.subtract(gold, predicted))
        return {"spearman": spearman(gold, predicted), "mae": float(errors.mean())}


class WordClassHead(Head):
    """A class for every word."""

    kind = "word_classes"

    def __init__(self, labels: LabelSet, hidden_size: int) -> None:
        super().__init__(labels, reads_all_layers=False)
        self.output = nn.Linear(hidden_size, len(labels))

    @property
    def reads(self) -> Literal["words"]:
        return "words"

    @classmethod
    def from_config(
        cls, config: TaskConfig, labels: LabelSet, encoder: EncoderShape
    ) -> WordClassHead:
        return cls(labels, encoder.hidden_size)

    def logits(self, features: Features) -> Tensor:
        rows = features.word_starts[:, :, None].expand(-1, -1, features.tokens.shape[2])
        logits: Tensor = self.output(features.tokens.float().gather(1, rows))
        return logits

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


@register_kind
class WordClasses(Kind):
    """A class for every word, which is no tag."""

    name = "word_classes"
    fields = ("classes",)
    head = WordClassHead
    options = ()
    metrics = ("accuracy",)
    main_metric = "accuracy"
    named_labels = True
    per_word = True
    checks_labels = True

    def reader(
        self, task: str, settings: Settings, known: LabelSet | None, keeps_unseen: bool
    ) -> ReadLabel:
        return lambda record, field: tuple(record.fields[field])

    def decide(self, settings: Settings, found: Any, refuse: Any) -> LabelSet:
        return LabelSet(("entity", "other"))

    def target(
        self, label: Any, words: NDArray[Any], labels: LabelSet, settings: Settings
    ) -> Sequence[float]:
        return [labels.index(name) for name in label]

    def collate(self, targets: Any, rows: NDArray[np.int64], width: int) -> NDArray[Any]:
        return np.asarray(targets.values.padded(rows, UNLABELLED, width))

    def suspicions(
        self, spec: TaskSpec, label: Any, text: ReadText, logs: Any, elsewhere: Any
    ) -> list[Suspicion]:
        found = (class_suspicion(spec.labels, *one) for one in zip(label, logs, strict=True))
        return [one for one in found if one is not None]

    def outcome(self, spec: TaskSpec, label: Any, tokens: Any, result: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def measure(
        self, spec: TaskSpec, gold: Sequence[Any], predicted: Sequence[Any]
    ) -> Mapping[str, Any]:
        raise NotImplementedError


class PlainTagger(TaggingHead):  # type: ignore[misc]
    """A tagger with a constructor of its own."""

    kind = "plain_tags"

    def __init__(self, labels: TagSet, encoder: EncoderShape) -> None:
        size = encoder.hidden_size
        super().__init__(labels, TokenReader(None), None, hidden_size=size, crf=None, dropout=0.1)

    @classmethod
    def from_config(
        cls, config: TaskConfig, labels: LabelSet, encoder: EncoderShape
    ) -> PlainTagger:
        assert isinstance(labels, TagSet)
        return cls(labels, encoder)


class PlainTags(Tagging):
    """Tags, by such a head."""

    name = "plain_tags"
    head = PlainTagger


TASKS = {"stars": {"kind": "stars"}, "intent": {"kind": "classification"}}


def rated(count: int, seed: int) -> list[dict[str, Any]]:
    """Sentences with more stars for places later in the list."""
    records = sentences(count, seed, fields=("label",))
    places = list(PLACES)
    for record in records[:-1]:
        stars = [1.0 + places.index(token) for token in record["tokens"] if token in places]
        record["stars"] = sum(stars) / 2 if stars else 0
    return records


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float, float]:
    folder = tmp_path_factory.mktemp("stars")
    write_records(folder / "train.jsonl", rated(60, 1))
    write_records(folder / "valid.jsonl", rated(24, 2))
    result, _ = run(folder, tasks=TASKS, num_epochs=4, best_metric="stars.spearman")
    scores = [entry["metrics"]["tasks"]["stars"]["spearman"] for entry in result.history]
    return result.best, scores[0], result.best_score


def stars_of(prediction: Prediction) -> float:
    result = prediction.results["stars"]
    assert isinstance(result, StarsResult)
    assert result.stars is not None
    return result.stars


def test_it_trains_and_is_chosen_by_its_own_metric(trained: tuple[Path, float, float]) -> None:
    best, first, score = trained
    assert score > 0.5
    assert score >= first
    report = evaluate(best)
    stars = report.evaluation["tasks"]["stars"]
    assert stars["spearman"] == pytest.approx(score, abs=1e-6)
    assert 0 < stars["mae"] < 2
    assert set(report.evaluation["tasks"]) == {"stars", "intent"}


def test_it_predicts_and_its_results_are_shown_and_written(
    trained: tuple[Path, float, float], capsys: pytest.CaptureFixture[str]
) -> None:
    best = trained[0]
    low, high = load(best, backend="torch").predict(["john lives in london", "john lives in york"])
    assert stars_of(low) < stars_of(high)
    assert main(["predict", str(best), "john lives in york", "--format", "jsonl"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["stars"]["stars"] == pytest.approx(stars_of(high), abs=1e-4)
    assert main(["predict", str(best), "john lives in york"]) == 0
    assert f"stars: {stars_of(high):.1f} stars" in capsys.readouterr().out
    assert main(["evaluate", str(best)]) == 0
    assert "mae" in capsys.readouterr().out
    (empty,) = load(best).predict([" "])
    assert empty.results["stars"] == StarsResult(None)


def test_its_export_predicts_the_same(trained: tuple[Path, float, float]) -> None:
    best = trained[0]
    texts = ["john lives in london", "where is mary ?"]
    expected = [stars_of(p) for p in load(best, backend="torch").predict(texts)]
    done = export_model(best, formats=["float32"], threads=1)
    assert not done.refused
    found = [stars_of(p) for p in load(best, backend="onnx").predict(texts)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_it_is_a_column_of_a_table(trained: tuple[Path, float, float]) -> None:
    predictor = load(trained[0], backend="torch")
    schema = result_schema(predictor.specs, embed=False)
    assert str(schema.field("stars").type) == "float"
    predictions = predictor.predict(["john lives in york", ""])
    columns = dict(
        zip(schema.names, result_columns(predictions, predictor.specs, schema), strict=True)
    )
    assert columns["stars"].to_pylist() == [pytest.approx(stars_of(predictions[0])), None]


def test_its_options_and_labels_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`labels` is for .* tasks only"):
        load_config(None, {"tasks": {"stars": {"kind": "stars", "labels": ["a"]}}})
    with pytest.raises(ConfigError, match=r"`tasks.stars.kind` is 'star'.*did you mean \"stars\""):
        load_config(None, {"tasks": {"stars": {"kind": "star"}}})
    write_records(tmp_path / "train.jsonl", [{"text": "a", "stars": "many"}])
    with pytest.raises(DataError, match=r"train.jsonl:1: `stars` is 'many'; expected a number"):
        run(tmp_path, tasks={"stars": {"kind": "stars"}})


def test_a_stored_task_of_it_has_no_labels() -> None:
    assert (
        TaskSpec.from_json({"name": "s", "kind": "stars", "labels": []}).main_metric == "spearman"
    )
    with pytest.raises(ModelError, match="labels a; expected none: numbers"):
        TaskSpec("s", "stars", ("a",))


def test_two_classes_cannot_have_one_name() -> None:
    class Other(Stars):
        pass

    with pytest.raises(ValueError, match="'stars' is registered"):
        register_kind(Other)
    assert type(kind_of("stars")) is Stars


def test_labels_of_words_that_are_no_tags_are_checked(tmp_path: Path) -> None:
    records = sentences(60, 3, fields=("ner",))
    for record in records:
        tags = record.pop("ner")
        record["classes"] = ["other" if tag == "O" else "entity" for tag in tags]
    wrong = records[7]["classes"]
    wrong[0] = "other" if wrong[0] == "entity" else "entity"
    path = write_records(tmp_path / "train.jsonl", records)
    tasks = {"classes": {"kind": "word_classes"}}
    found = find_suspects(str(path), config(tmp_path, tasks=tasks), count=3)
    assert (8, wrong[0]) in [(one.record, one.given) for one in found]


def test_a_curve_keeps_one_layer_of_words_whose_head_reads_one(tmp_path: Path) -> None:
    records = [Record("john lives in york", None, {"classes": ("other",) * 4}, "")]
    made = config(tmp_path, tasks={"classes": {"kind": "word_classes"}})
    labels = {"classes": LabelSet(("entity", "other"))}
    for keeps_layers, layers in ((False, [2]), (True, [0, 1, 2])):
        heads = FrozenHeads(records, made.tasks, labels, made, keeps_layers=keeps_layers)
        assert list(heads.cache.training_batch(0, heads.rows).states) == layers


def test_labels_of_a_kind_derived_from_tagging_are_checked_whatever_makes_its_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    register_kind(PlainTags)
    records = sentences(60, 3, fields=("ner",))
    path = write_records(tmp_path / "train.jsonl", records)
    tasks = {"ner": {"kind": "plain_tags", "field": "ner"}}
    assert find_suspects(str(path), config(tmp_path, tasks=tasks), count=3).records == 60
    made = head_class("plain_tags").for_frozen_encoder(
        TaskConfig(kind="plain_tags"), TagSet(("O", "B-PER", "I-PER")), EncoderShape(8, 2)
    )
    assert made.spec("ner").kind == "plain_tags"


def test_a_kind_that_checks_labels_names_them() -> None:
    with pytest.raises(ValueError, match="'numbers' checks labels, which therefore need names"):
        register_kind(type("Numbers", (Stars,), {"name": "numbers", "checks_labels": True}))


def test_a_head_that_cannot_be_fitted_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stars, "options", ("start",))
    write_records(tmp_path / "train.jsonl", rated(20, 1))
    write_records(tmp_path / "valid.jsonl", rated(8, 2))
    with pytest.raises(ConfigError, match=r"`tasks.stars.start` is fitted, but heads of kind star"):
        run(tmp_path, tasks={"stars": {"kind": "stars", "start": "fitted"}})


def test_a_kind_of_pairs_derived_from_classification_starts_without_its_options() -> None:
    base = kind_of("classification")
    derived: Kind = type("Inference", (type(base),), {"name": "inference", "pairs": True})()
    values = FieldValues("label")
    assert base.starting_options(values, ()) == base.starting
    assert derived.starting_options(values, ()) == {}


def test_an_installed_package_can_register_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kind_of_moods.py").write_text(
        "from manyheads.tasks import register_kind\n"
        "from manyheads.tasks.kinds.classification import Classification\n"
        "@register_kind\n"
        "class Moods(Classification):\n"
        "    name = 'moods'\n"
    )
    info = tmp_path / "moods-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moods\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[manyheads.kinds]\nmoods = kind_of_moods\n")
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    with pytest.raises(ModelError, match="no kind of task 'moods'"):
        kind_of("moods")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._load_installed.cache_clear()  # as in a new process
    assert TaskConfig(kind="moods").fields == ("label",)


def test_padding_and_missing_labels_do_not_change_its_loss() -> None:
    head = StarsHead(LabelSet(()), 4)
    logits, targets = torch.tensor([[1.0], [5.0]]), torch.tensor([2.0, -100.0])
    assert head.loss(logits, targets).item() == 1.0
