"""Heads ignore padding and missing labels, and can be exported."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from manyheads.config import TaskConfig
from manyheads.errors import ConfigError, ModelError
from manyheads.modeling import EncoderShape, Features, Head, make_head
from manyheads.modeling.heads import IGNORE, ClassificationHead, TaggingHead
from manyheads.modeling.heads.base import take_rows
from manyheads.modeling.heads.layer_mix import ScalarMix
from manyheads.modeling.heads.necks import BiLSTM, TransformerNeck
from manyheads.modeling.heads.sentence import AttentionPooling
from manyheads.tasks import LabelSet, Scheme, Scored, TagSet, TaskSpec, decode
from manyheads.text import WORD_FEATURE_COLUMNS, WORD_FEATURE_ROWS

SHAPE = EncoderShape(hidden_size=16, num_layers=3)
CLASSES = LabelSet(("a", "b", "c"))
TAGS = TagSet.of_types(("x", "y"))

SETTINGS: dict[str, dict[str, Any]] = {
    "classification": {"kind": "classification", "label_smoothing": 0.1},
    "rich classification": {
        "kind": "classification",
        "reads": "mix",
        "pooling": ("sentence", "embedding", "cls", "mean", "max", "attention", "middle"),
        "hidden": 7,
    },
    "multilabel": {"kind": "multilabel"},
    "tagging": {"kind": "tagging"},
    "plain tagging": {"kind": "tagging"},
    "crf": {"kind": "tagging", "decoder": "crf", "reads": "mix"},
    "bilstm": {
        "kind": "tagging",
        "neck": "bilstm",
        "neck_size": 5,
        "neck_layers": 2,
        "decoder": "crf",
    },
    "shaped": {"kind": "tagging", "word_features": "on"},
    "shaped bilstm": {
        "kind": "tagging",
        "word_features": "on",
        "decoder": "crf",
        "neck": "bilstm",
        "neck_size": 5,
    },
    "transformer": {
        "kind": "tagging",
        "neck": "transformer",
        "neck_size": 12,
        "neck_layers": 2,
        "reads": "mix",
    },
}
all_heads = pytest.mark.parametrize("name", SETTINGS)
tagging_heads = pytest.mark.parametrize(
    "name", [name for name, values in SETTINGS.items() if values["kind"] == "tagging"]
)


def labels_of(name: str) -> LabelSet:
    if SETTINGS[name]["kind"] != "tagging":
        return CLASSES
    return TagSet(("noun", "verb"), Scheme.PLAIN) if name == "plain tagging" else TAGS


def make(name: str, **changes: Any) -> Head:
    torch.manual_seed(0)
    config = TaskConfig(**{"dropout": 0.0, **SETTINGS[name], **changes})
    head = make_head(config, labels_of(name), SHAPE)
    with torch.no_grad():
        # Larger than the initial weights, so that differences show.
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return head


def random_features(
    tokens: int = 9, lengths: tuple[int, ...] = (9, 6, 4), seed: int = 0, num_layers: int = 3
) -> Features:
    """Sentences of the given lengths: each token but the first and the last is a word."""
    generator = torch.Generator().manual_seed(seed)
    batch, hidden = len(lengths), SHAPE.hidden_size
    layers = tuple(
        torch.randn(batch, tokens, hidden, generator=generator) for _ in range(num_layers + 1)
    )
    places = torch.arange(tokens)
    counts = torch.tensor(lengths)
    words = torch.arange(max(1, tokens - 2))
    word_mask = words < (counts - 2)[:, None]
    sentence = torch.randn(batch, hidden, generator=generator)
    return Features(
        tokens=layers[-1],
        layers=layers,
        attention_mask=(places < counts[:, None]).long(),
        sentence=sentence,
        word_starts=(words + 1) * word_mask,
        word_mask=word_mask,
        encoder_sentence=sentence,
        word_features=_random_ids(word_mask, generator) * word_mask[:, :, None],
    )


def _random_ids(word_mask: Tensor, generator: torch.Generator) -> Tensor:
    shape = (*word_mask.shape, WORD_FEATURE_COLUMNS)
    return torch.randint(1, WORD_FEATURE_ROWS, shape, generator=generator)


def random_targets(name: str, features: Features, unlabelled: tuple[int, ...] = ()) -> Tensor:
    """Allowed targets, with -100 for padding and for whole sentences."""
    rng = np.random.default_rng(1)
    batch, words = features.word_mask.shape
    kind, num_labels = SETTINGS[name]["kind"], len(labels_of(name))
    if kind == "classification":
        targets = torch.tensor(rng.integers(0, num_labels, batch))
    elif kind == "multilabel":
        targets = torch.tensor(rng.integers(0, 2, (batch, num_labels)), dtype=torch.float32)
    else:
        # B-x, I-x, O, B-y, ... is allowed under BIO; plain tags are free.
        cycle = (0, 1) if name == "plain tagging" else (1, 2, 0, 3, 3, 4)
        path = [tag for tag, _ in zip(itertools.cycle(cycle), range(words), strict=False)]
        targets = torch.tensor(path).repeat(batch, 1).masked_fill(~features.word_mask, IGNORE)
    targets[list(unlabelled)] = IGNORE
    return targets


def gradients(head: Head, features: Features, targets: Tensor) -> list[Tensor]:
    loss = head.loss(head(features), targets)
    found = torch.autograd.grad(loss, list(head.parameters()), materialize_grads=True)
    return [loss, *found]


def scribble(features: Features) -> Features:
    """The same sentences with other values for padding."""
    generator = torch.Generator().manual_seed(99)
    padding = (features.attention_mask == 0).unsqueeze(2)

    def over(vectors: Tensor) -> Tensor:
        return torch.where(padding, torch.randn(vectors.shape, generator=generator) * 50, vectors)

    assert features.layers is not None
    assert features.word_features is not None
    return dataclasses.replace(
        features,
        tokens=over(features.tokens),
        layers=tuple(over(layer) for layer in features.layers),
        word_starts=torch.where(
            features.word_mask, features.word_starts, features.tokens.shape[1] - 1
        ),
        word_features=torch.where(
            features.word_mask[:, :, None],
            features.word_features,
            _random_ids(features.word_mask, generator),
        ),
    )


def cut(features: Features, rows: slice, tokens: int) -> Features:
    """Some of the sentences, with less padding."""
    assert features.layers is not None
    assert features.word_features is not None
    words = max(1, tokens - 2)
    return Features(
        tokens=features.tokens[rows, :tokens],
        layers=tuple(layer[rows, :tokens] for layer in features.layers),
        attention_mask=features.attention_mask[rows, :tokens],
        sentence=features.sentence[rows],
        word_starts=features.word_starts[rows, :words],
        word_mask=features.word_mask[rows, :words],
        encoder_sentence=features.encoder_sentence[rows],
        word_features=features.word_features[rows, :words],
    )


def test_a_sentence_without_word_features_is_read_by_its_vectors_alone() -> None:
    head, features = make("shaped bilstm").eval(), random_features()
    assert features.word_features is not None
    without = dataclasses.replace(features, word_features=features.word_features * 0)
    half = features.word_features.clone()
    half[1:] = 0
    mixed = head(dataclasses.replace(features, word_features=half))
    assert torch.allclose(mixed[:1], head(features)[:1], atol=1e-5)
    assert torch.allclose(mixed[1:], head(without)[1:], atol=1e-5)
    assert not torch.allclose(mixed[1], head(features)[1], atol=1e-2)


@all_heads
def test_logits_are_float32_and_have_a_score_for_every_label(name: str) -> None:
    features = random_features()
    logits = make(name)(features)
    words = features.word_mask.shape if SETTINGS[name]["kind"] == "tagging" else (3,)
    assert logits.shape == (*words, len(labels_of(name)))
    assert logits.dtype == torch.float32


@all_heads
def test_padding_affects_neither_loss_nor_gradients(name: str) -> None:
    head, features = make(name), random_features()
    targets = random_targets(name, features)
    for before, after in zip(
        gradients(head, features, targets),
        gradients(head, scribble(features), targets),
        strict=True,
    ):
        torch.testing.assert_close(before, after, atol=0, rtol=0)


@all_heads
def test_a_sentence_has_the_same_logits_alone_and_in_any_batch(name: str) -> None:
    head, features = make(name).eval(), scribble(random_features())
    together = head(features)
    for i, tokens in enumerate((9, 6, 4)):
        alone = head(cut(features, slice(i, i + 1), tokens))
        expected = together[i : i + 1]
        if alone.dim() == 3:
            expected = expected[:, : tokens - 2]
        torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


@all_heads
def test_loss_is_the_mean_over_labelled_sentences_or_words(name: str) -> None:
    """Unlabelled sentences change nothing; parts are weighted by their sentences or words."""
    head, features = make(name), random_features()
    first, second = cut(features, slice(0, 1), 9), cut(features, slice(1, 3), 6)
    targets = random_targets(name, features)
    if targets.dim() == 2 and SETTINGS[name]["kind"] == "tagging":
        weights, halves = (7, 6), (targets[:1], targets[1:, :4])
    else:
        weights, halves = (1, 2), (targets[:1], targets[1:])
    losses = [
        head.loss(head(part), half) for part, half in zip((first, second), halves, strict=True)
    ]
    whole = head.loss(head(features), targets)
    expected = (weights[0] * losses[0] + weights[1] * losses[1]) / sum(weights)
    torch.testing.assert_close(whole, expected)
    partial = head.loss(head(features), random_targets(name, features, unlabelled=(1, 2)))
    torch.testing.assert_close(partial, losses[0])


@all_heads
def test_a_batch_without_labels_has_loss_zero_and_gradients_zero(name: str) -> None:
    head, features = make(name), random_features()
    targets = random_targets(name, features, unlabelled=(0, 1, 2))
    loss = head.loss(head(features), targets)
    loss.backward()
    assert loss.item() == 0.0
    for parameter in head.parameters():
        assert parameter.grad is None or not parameter.grad.any()
    assert any(parameter.grad is not None for parameter in head.parameters())


@all_heads
def test_sentences_without_words_are_harmless(name: str) -> None:
    features = random_features(tokens=2, lengths=(2, 2))
    head = make(name)
    loss, *found = gradients(head, features, random_targets(name, features))
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in found)
    decoded = head.decode(head(features), features.word_mask)
    if SETTINGS[name]["kind"] == "tagging":
        assert [len(ids) for ids, _ in decoded] == [0, 0]


@all_heads
def test_heads_compute_in_float32_on_an_encoder_in_bfloat16(name: str) -> None:
    head, features = make(name).eval(), random_features()
    assert features.layers is not None
    rounded = dataclasses.replace(
        features,
        tokens=features.tokens.bfloat16(),
        layers=tuple(layer.bfloat16() for layer in features.layers),
    )
    exact = dataclasses.replace(
        rounded,
        tokens=rounded.tokens.float(),
        layers=tuple(layer.bfloat16().float() for layer in features.layers),
    )
    targets = random_targets(name, features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head.loss(head(rounded), targets)
    found = [loss, *torch.autograd.grad(loss, list(head.parameters()))]
    for ours, expected in zip(found, gradients(head, exact, targets), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, expected, atol=0, rtol=0)


@all_heads
def test_every_parameter_learns(name: str) -> None:
    head, features = make(name), random_features()
    _, *found = gradients(head, features, random_targets(name, features))
    for (parameter, _), gradient in zip(head.named_parameters(), found, strict=True):
        assert gradient.any(), parameter


@all_heads
def test_torch_and_numpy_decode_the_same(name: str) -> None:
    head, features = make(name).eval(), random_features()
    logits = head(features)
    lengths = features.word_mask.sum(dim=1).numpy()
    spec = TaskSpec.from_json(head.spec("task").to_json())
    expected = decode(spec, logits.detach().numpy(), lengths, head.learned())
    found = head.decode(logits, features.word_mask)
    pairs = [(found, expected)] if isinstance(found, Scored) else zip(found, expected, strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours.ids, theirs.ids)
        np.testing.assert_array_equal(ours.scores, theirs.scores)


@all_heads
def test_the_same_seed_makes_the_same_head(name: str) -> None:
    first, second = make(name), make(name)
    for (key, a), (_, b) in zip(
        first.state_dict().items(), second.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), key


@all_heads
def test_a_head_applies_dropout_in_training_only(name: str) -> None:
    head, features = make(name, dropout=0.5), random_features()
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


@pytest.mark.parametrize("name", ["classification", "multilabel"])
def test_sentence_losses_are_the_textbook_ones(name: str) -> None:
    head = make(name)
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    if name == "classification":
        log = logits.log_softmax(dim=1)
        expected = -(0.9 * (log[0, 0] + log[1, 2]) + 0.1 * log.mean(dim=1).sum()) / 2
        targets = torch.tensor([0, 2])
    else:
        targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, IGNORE, 1.0]])
        p = logits.sigmoid()
        shares = (p[0, 0], 1 - p[0, 1], p[0, 2], 1 - p[1, 0], p[1, 2])
        expected = -torch.stack(shares).log().mean()
    torch.testing.assert_close(head.loss(logits, targets), expected)


def test_a_fitted_head_separates_its_data_and_does_not_depend_on_its_initial_weights() -> None:
    torch.manual_seed(0)
    vectors, targets = torch.randn(30, 16), torch.arange(30) % 3
    vectors[:, :3] += 3 * nn.functional.one_hot(targets, 3)
    weights = []
    for _ in range(2):
        head = make("classification", pooling=("embedding",))
        assert isinstance(head, ClassificationHead)
        head.fit(vectors, targets)
        output = head.scorer.layers[-1]
        assert torch.equal(output(vectors).argmax(dim=1), targets)
        assert all(parameter.grad is None for parameter in head.parameters())
        weights.append(output.weight.detach())
    torch.testing.assert_close(*weights)


def test_the_embedding_is_the_sentence_vector_at_length_one() -> None:
    head, features = make("classification", pooling=("embedding",)).eval(), random_features()
    longer = dataclasses.replace(features, sentence=3 * features.sentence)
    torch.testing.assert_close(head(features), head(longer))
    assert head.reads == "sentence"


def test_the_middle_layer_is_read_alone_and_at_length_one() -> None:
    head, features = make("classification", pooling=("middle",)).eval(), random_features()
    assert head.reads_all_layers
    assert features.layers is not None
    layers = [torch.zeros_like(layer) for layer in features.layers]
    layers[2] = 3 * features.layers[2]
    other = dataclasses.replace(features, layers=tuple(layers), sentence=-features.sentence)
    torch.testing.assert_close(head(features), head(other))


def test_crf_loss_is_comparable_to_a_cross_entropy_per_word() -> None:
    """With plain classes and no transitions, the two losses are equal."""
    tags = TagSet(("noun", "verb"), Scheme.PLAIN)
    linear = make_head(TaskConfig(kind="tagging"), tags, SHAPE)
    crf = make_head(TaskConfig(kind="tagging", decoder="crf"), tags, SHAPE)
    assert isinstance(crf, TaggingHead)
    assert crf.crf is not None
    with torch.no_grad():
        for parameter in crf.crf.parameters():
            parameter.zero_()
    logits = torch.randn(2, 3, 2)
    targets = torch.tensor([[0, 1, 1], [1, IGNORE, IGNORE]])
    torch.testing.assert_close(crf.loss(logits, targets), linear.loss(logits, targets))


def test_mix_starts_as_the_mean_and_learns_which_layer_matters() -> None:
    torch.manual_seed(0)
    mix = ScalarMix(4)
    layers = [torch.randn(8, 5, 6) for _ in range(4)]
    torch.testing.assert_close(mix(layers), torch.stack(layers).mean(dim=0))
    optimizer = torch.optim.Adam(mix.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (mix(layers) - 2 * layers[1]).square().mean().backward()
        optimizer.step()
    assert mix.weights.softmax(dim=0).argmax() == 1
    torch.testing.assert_close(mix(layers), 2 * layers[1], atol=0.1, rtol=0.1)


def test_attention_pooling_weighs_tokens_but_not_padding() -> None:
    torch.manual_seed(0)
    pooling = AttentionPooling(4)
    with torch.no_grad():
        pooling.query.weight.fill_(50.0)
        pooling.project.weight.copy_(torch.eye(4))
        pooling.project.bias.zero_()
    tokens = torch.tensor([[[1.0] * 4, [-1.0] * 4, [9.0] * 4]])
    pooled = pooling(tokens, torch.tensor([[1, 1, 0]]))
    torch.testing.assert_close(pooled, torch.ones(1, 4))


def test_sentence_poolings_are_concatenated_in_order() -> None:
    head = make("rich classification", reads="last", hidden=None, pooling=("sentence", "max"))
    assert isinstance(head, ClassificationHead)
    features = random_features()
    inside = features.attention_mask.bool().unsqueeze(2)
    greatest = features.tokens.masked_fill(~inside, -torch.inf).amax(dim=1)
    linear = head.scorer.layers[-1]
    expected = linear(torch.cat([features.sentence, greatest], dim=1))
    torch.testing.assert_close(head(features), expected)


def test_words_are_read_through_their_first_tokens() -> None:
    vectors = torch.arange(24.0).view(2, 3, 4)
    rows = torch.tensor([[2, 0], [1, 1]])
    expected = torch.stack([vectors[0, [2, 0]], vectors[1, [1, 1]]])
    assert torch.equal(take_rows(vectors, rows), expected)


def test_bilstm_neck_equals_torchs_on_packed_sentences() -> None:
    torch.manual_seed(0)
    neck = BiLSTM(6, 5, num_layers=2, dropout=0.0)
    reference = nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True)
    weights = {}
    for layer in range(2):
        for module, suffix in ((neck.ahead[layer], ""), (neck.back[layer], "_reverse")):
            for key, value in module.state_dict().items():
                weights[key.replace("_l0", f"_l{layer}{suffix}")] = value
    reference.load_state_dict(weights)
    words, lengths = torch.randn(3, 7, 6), torch.tensor([7, 3, 1])
    mask = torch.arange(7) < lengths[:, None]
    packed = nn.utils.rnn.pack_padded_sequence(words, lengths, batch_first=True)
    expected, _ = nn.utils.rnn.pad_packed_sequence(reference(packed)[0], batch_first=True)
    found = neck(words, mask)
    torch.testing.assert_close(found[mask], expected[mask])


@pytest.mark.parametrize("size", [1, 30, 48, 100, 128])
def test_transformer_neck_accepts_any_size(size: int) -> None:
    neck = TransformerNeck(6, size, num_layers=1, dropout=0.0)
    mask = torch.tensor([[True, True], [False, False]])
    found = neck(torch.randn(2, 2, 6), mask)
    assert found.shape == (2, 2, size)
    assert torch.isfinite(found).all()


def test_mixing_layers_without_a_pooling_that_reads_them_is_refused() -> None:
    config = TaskConfig(kind="classification", reads="mix")
    with pytest.raises(ConfigError, match="mixes layers that nothing reads; expected cls, mean"):
        make_head(config, CLASSES, SHAPE)


def test_a_mixing_head_that_gets_one_layer_raises() -> None:
    features = dataclasses.replace(random_features(), layers=None)
    with pytest.raises(ValueError, match="needs all of them"):
        make("crf")(features)


def test_a_tagging_head_needs_tags() -> None:
    with pytest.raises(TypeError, match="needs a TagSet, not a LabelSet"):
        make_head(TaskConfig(kind="tagging"), CLASSES, SHAPE)


@pytest.mark.parametrize(
    ("name", "mixes"), [("classification", False), ("tagging", False), ("crf", True)]
)
def test_a_head_states_whether_it_reads_all_layers(name: str, mixes: bool) -> None:
    assert make(name).reads_all_layers is mixes


def test_a_kind_that_is_not_registered_has_no_head() -> None:
    config = TaskConfig.model_construct(kind="length")
    with pytest.raises(ModelError, match="no kind of task 'length'; expected one of: classi"):
        make_head(config, CLASSES, SHAPE)


class Exportable(nn.Module):
    """A head with tensors as arguments, as an exporter needs."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(
        self,
        layers: Tensor,
        attention_mask: Tensor,
        sentence: Tensor,
        word_starts: Tensor,
        word_mask: Tensor,
        word_features: Tensor,
    ) -> Tensor:
        logits: Tensor = self.head(
            Features(
                tokens=layers[-1],
                layers=layers.unbind(0),
                attention_mask=attention_mask,
                sentence=sentence,
                word_starts=word_starts,
                word_mask=word_mask,
                encoder_sentence=sentence,
                word_features=word_features,
            )
        )
        return logits


def tensors_of(features: Features) -> dict[str, Tensor]:
    assert features.layers is not None
    assert features.word_features is not None
    return {
        "layers": torch.stack(features.layers),
        "attention_mask": features.attention_mask,
        "sentence": features.sentence,
        "word_starts": features.word_starts,
        "word_mask": features.word_mask,
        "word_features": features.word_features,
    }


@all_heads
def test_heads_export_to_onnx_for_any_batch_and_length(name: str, tmp_path: Path) -> None:
    head = Exportable(make(name).eval())
    axes = {
        "layers": {1: "batch", 2: "tokens"},
        "attention_mask": {0: "batch", 1: "tokens"},
        "sentence": {0: "batch"},
        "word_starts": {0: "batch", 1: "words"},
        "word_mask": {0: "batch", 1: "words"},
        "word_features": {0: "batch", 1: "words"},
    }
    traced = tensors_of(random_features(tokens=7, lengths=(7, 5)))
    path = tmp_path / "head.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            head,
            tuple(traced.values()),
            path,
            input_names=list(traced),
            output_names=["logits"],
            dynamo=False,
            dynamic_axes=axes,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for tokens, lengths in ((9, (9, 6, 4)), (5, (5,)), (3, (2, 3, 3, 2))):
        inputs = tensors_of(random_features(tokens, lengths))
        wanted = [argument.name for argument in session.get_inputs()]
        (found,) = session.run(None, {key: inputs[key].numpy() for key in wanted})
        expected = head(**inputs).detach().numpy()
        assert np.isfinite(found).all()
        mask = inputs["word_mask"].numpy() if expected.ndim == 3 else slice(None)
        np.testing.assert_allclose(found[mask], expected[mask], atol=1e-4, rtol=1e-4)
