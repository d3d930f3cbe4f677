"""One ONNX graph of the whole model, fused by onnxruntime's transformer optimiser.

The graph's outputs are every head's logits and the embedding. Batch size, length and number of
words are free. Decoding is not part of it.

The tracing exporter (`dynamo=False`) is used, with transformers' eager attention, since the
optimiser's patterns were written for this form. It does not fuse the graphs of `torch.export` at
all, and does not report that; hence the counts that are checked here.

Axes: B sentences, T tokens, W words.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from manyheads.errors import ModelError, option, shorten
from manyheads.inference.backends.base import INPUTS
from manyheads.inference.backends.onnx import import_onnxruntime
from manyheads.modeling import Encoder, ModelInputs, MultiTaskModel
from manyheads.text import WORD_FEATURE_COLUMNS, WORD_FEATURE_ROWS

if TYPE_CHECKING:
    import onnx

OPSET = 17
OPSETS = (14, 17)
"""The first and the last version of ONNX's operators that can be asked for."""

# Prefixes of the exporter's node names, derived from the modules' names.
ENCODER, HEAD_LAYERS = "/model/encoder/backbone/", "/model/head_layers/"

# One protobuf message, and so one ONNX file, cannot be larger.
_MAX_BYTES = 2**31 - 2**20

# Encoders whose attention the optimiser knows. MPNet adds relative positions to the scores and
# ModernBERT rotates queries and keys: their attention stays a few open operators, which on
# processors are as fast (see docs/benchmarks.md).
_FUSED_ATTENTION = ("bert", "distilbert", "roberta", "xlm-roberta")

_GELUS = ("Gelu", "FastGelu", "BiasGelu")
_NORMS = ("LayerNormalization", "SkipLayerNormalization", "EmbedLayerNormalization")


@dataclass(frozen=True, slots=True)
class Fusions:
    """The number of fused operators of each kind in a graph."""

    attention: int
    layer_norm: int
    gelu: int


def trace_graph(model: MultiTaskModel, *, opset: int = OPSET) -> onnx.ModelProto:
    """Export a model to a graph of ONNX's own operators.

    Args:
        model: on the CPU, in evaluation mode.
        opset: the version of ONNX's operators.

    Raises:
        ModelError: the model is too large for one file, or an encoder of its type cannot be
            exported.
    """
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if size > _MAX_BYTES:
        raise ModelError(
            f"the model's parameters take {size / 1e9:.1f} GB",
            expected="at most 2 GB, which is what one ONNX file can hold",
            fix=f"Predict with PyTorch ({option('--backend torch')}), or train a smaller encoder.",
        )
    example = _example(model)
    with torch.no_grad():
        outputs = model(ModelInputs(*example))
    axes: dict[str, dict[int, str]] = {
        "input_ids": {0: "batch", 1: "tokens"},
        "attention_mask": {0: "batch", 1: "tokens"},
        "word_tokens": {0: "batch", 1: "words"},
        "word_mask": {0: "batch", 1: "words"},
        "word_features": {0: "batch", 1: "words"},
    }
    for name, values in outputs.items():
        axes[name] = {0: "batch"} | ({1: "words"} if values.dim() == 3 else {})
    inputs = INPUTS[: len(example)]
    return _trace(model, _Traced(model), example, inputs, list(outputs), axes, opset)


def trace_encoder(model: MultiTaskModel, *, opset: int = OPSET) -> onnx.ModelProto:
    """Export only the encoder, in the form that other ONNX runtimes expect.

    Inputs are `input_ids` and `attention_mask`, outputs `last_hidden_state` [B, T, H] and
    `sentence_embedding`. Every runtime has the operators, which are ONNX's own.

    Args:
        model: as for `trace_graph`, which refuses one that is too large.
        opset: the version of ONNX's operators.

    Raises:
        ModelError: an encoder of this type cannot be exported.
    """
    names = ("last_hidden_state", "sentence_embedding")
    tokens = {0: "batch", 1: "tokens"}
    axes = dict.fromkeys((*INPUTS[:2], names[0]), tokens) | {names[1]: {0: "batch"}}
    traced = _TracedEncoder(model.encoder).eval()
    return _trace(model, traced, _example(model)[:2], INPUTS[:2], names, axes, opset)


def fuse_graph(traced: onnx.ModelProto, model: MultiTaskModel) -> tuple[onnx.ModelProto, Fusions]:
    """Fuse a traced graph's operators into onnxruntime's fast ones.

    Args:
        traced: the graph by `trace_graph`; it is not changed.
        model: the model.

    Raises:
        ModelError: the optimiser fused fewer operators than it should for encoders of this type.
    """
    import onnx

    optimizer = import_onnxruntime("transformers.optimizer")
    config = model.encoder.backbone.config
    options = import_onnxruntime("transformers.fusion_options").FusionOptions("bert")
    # onnxruntime's kernel for a sum and its normalisation in one is several times slower on
    # processors than the two one after the other, and a bias goes free with an int8 product.
    options.enable_skip_layer_norm = False
    options.enable_bias_gelu = False
    with tempfile.TemporaryDirectory(prefix="manyheads-export-") as folder, quiet():
        path = Path(folder) / "traced.onnx"
        onnx.save(_parted(traced), path)
        optimised = optimizer.optimize_model(
            str(path),
            model_type="bert",
            num_heads=int(config.num_attention_heads),
            hidden_size=int(config.hidden_size),
            optimization_options=options,
            opt_level=0,
        )
        _join(optimised.model)
        # Saving sorts the graph and declares the fused operators' domain.
        optimised.save_model_to_file(str(path))
        graph = onnx.load(path)
    graph.producer_name, graph.producer_version = "manyheads", ""
    fusions = count_fusions(graph)
    _check_fusions(fusions, expected_fusions(model), config.model_type)
    return graph, fusions


def _parted(traced: onnx.ModelProto) -> onnx.ModelProto:
    """Let the heads' own layers read the encoder's state under a separate name.

    The optimiser recognises the input of an attention by its being read by exactly three products.
    The new name is the output of a maximum of the state alone, which the optimiser keeps.
    """
    import onnx

    graph = onnx.ModelProto()
    graph.CopyFrom(traced)
    nodes = list(graph.graph.node)
    weights = {tensor.name for tensor in graph.graph.initializer}
    readers: dict[bool, set[str]] = {True: set(), False: set()}
    for node in nodes:
        if node.op_type == "MatMul":
            readers[node.name.startswith(HEAD_LAYERS)].update(node.input)
    for state in sorted((readers[True] & readers[False]) - weights):
        name = f"{HEAD_LAYERS}{state}"
        for node in nodes:
            if node.name.startswith(HEAD_LAYERS):
                node.input[:] = [name if given == state else given for given in node.input]
        place = next(i for i, node in enumerate(nodes) if state in node.output)
        graph.graph.node.insert(place + 1, onnx.helper.make_node("Max", [state], [name]))
    return graph


def _join(graph: onnx.ModelProto) -> None:
    """Undo `_parted`."""
    nodes = graph.graph.node
    states: dict[str, str] = {}
    for node in list(nodes):
        if (
            node.op_type == "Max"
            and node.output[0].startswith(HEAD_LAYERS)
            and len(node.input) == 1
        ):
            states[node.output[0]] = node.input[0]
            nodes.remove(node)
    for node in nodes:
        node.input[:] = [states.get(name, name) for name in node.input]


def count_fusions(graph: onnx.ModelProto) -> Fusions:
    """Count the fused operators of a graph."""
    kinds = Counter(node.op_type for node in graph.graph.node)
    return Fusions(
        attention=kinds["Attention"] + kinds["MultiHeadAttention"],
        layer_norm=sum(kinds[name] for name in _NORMS),
        gelu=sum(kinds[name] for name in _GELUS),
    )


def expected_fusions(model: MultiTaskModel) -> Fusions:
    """Return the operators that the optimiser must fuse: normalisations, GELUs and attentions."""
    config = model.encoder.backbone.config
    own = model.head_layers
    layers = model.encoder.shape.num_layers + (0 if own is None else own.count)
    modules = list(model.modules())
    activations = [getattr(config, name, "") for name in
                   ("hidden_act", "activation", "hidden_activation")]  # fmt: skip
    return Fusions(
        attention=layers if config.model_type in _FUSED_ATTENTION else 0,
        layer_norm=sum(isinstance(module, nn.LayerNorm) for module in modules),
        gelu=layers * ("gelu" in activations)
        + sum(isinstance(module, nn.GELU) for module in model.heads.modules()),
    )


def _check_fusions(found: Fusions, expected: Fusions, model_type: str) -> None:
    for kind in ("attention", "layer_norm", "gelu"):
        if getattr(found, kind) < getattr(expected, kind):
            raise ModelError(
                f"the optimiser fused {getattr(found, kind)} of {getattr(expected, kind)} "
                f"{kind} patterns of this {model_type} encoder, so that the graph would be slow",
                expected="every one, as with the versions in requirements.txt",
                fix="Install the tested versions of torch, transformers and onnxruntime; those of "
                "onnxruntime need Python 3.11.",
            )


class _Traced(nn.Module):
    """The model in the exporter's form: tensors in, a tuple of tensors out."""

    def __init__(self, model: MultiTaskModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(ModelInputs(*inputs)).values())


class _TracedEncoder(nn.Module):
    """Only the encoder, in the same form."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        encoded = self.encoder(input_ids, attention_mask)
        return encoded.tokens, self.encoder.embed(encoded.sentence)


def _trace(
    model: MultiTaskModel,
    traced: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    axes: Mapping[str, Mapping[int, str]],
    opset: int,
) -> onnx.ModelProto:
    """Trace a module that wraps the model, or a part of it, with attention that can be fused."""
    import onnx

    config = model.encoder.backbone.config
    attention, training = config._attn_implementation, model.training
    _set_attention(model.eval(), "eager")
    try:
        with tempfile.TemporaryDirectory(prefix="manyheads-export-") as folder, quiet():
            path = Path(folder) / "traced.onnx"
            with torch.no_grad():
                torch.onnx.export(
                    traced.eval(),
                    example,
                    str(path),
                    input_names=list(inputs),
                    output_names=list(outputs),
                    dynamic_axes=axes,
                    opset_version=opset,
                    do_constant_folding=True,
                    dynamo=False,
                )
            graph = onnx.load(path)
        _check_sizes(graph, traced, example, axes, model.encoder.max_positions)
    except (OSError, MemoryError):  # which say nothing of the encoder
        raise
    except Exception as error:  # the libraries raise exceptions of many types
        raise ModelError(
            f"a {config.model_type} encoder cannot be exported ({shorten(str(error), 200)})",
            expected="an encoder that an ONNX graph can express, such as BERT or ModernBERT",
            fix=f"Predict with PyTorch ({option('--backend torch')}), or train another encoder.",
        ) from error
    finally:
        _set_attention(model, attention)
        model.train(training)
    return graph


def _check_sizes(
    graph: onnx.ModelProto,
    traced: nn.Module,
    example: tuple[Tensor, ...],
    axes: Mapping[str, Mapping[int, str]],
    max_positions: int,
) -> None:
    """Run a graph on fewer and on more tokens than it was traced with.

    This finds sizes that the tracer took for constants.

    Raises:
        ValueError: the graph's outputs differ from PyTorch's.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    ids, mask, *words = example
    sizes = [(ids[:2, :9], mask[:2, :9], *(tensor[:2] for tensor in words))]
    if 2 * ids.shape[1] <= max_positions:
        sizes.append((ids.repeat(1, 2), mask.repeat(1, 2), *words))
    for inputs in sizes:
        given = dict(zip(INPUTS, inputs, strict=False))
        found = session.run(names, {name: given[name].numpy() for name in sorted(wanted)})
        with torch.no_grad():
            expected = traced(*inputs)
        masks = {"tokens": inputs[1].bool(), "words": inputs[3 if words else 1].bool()}
        for name, values, computed in zip(names, expected, found, strict=True):
            rows = masks.get(axes[name].get(1, ""), slice(None))
            if not torch.allclose(values[rows], torch.from_numpy(computed)[rows], 1e-3, 1e-3):
                raise ValueError(f"{name} is wrong for {inputs[0].shape[1]} tokens")


def _set_attention(model: MultiTaskModel, implementation: str) -> None:
    model.encoder.backbone.set_attn_implementation(implementation)
    if model.head_layers is not None:
        model.head_layers.set_attention(implementation)


def _example(model: MultiTaskModel) -> tuple[Tensor, ...]:
    """Make a batch in which all axes differ in length, so that none is confused with another."""
    batch, tokens, words = 3, 11, 6
    vocabulary = int(model.encoder.backbone.config.vocab_size)
    ids = torch.arange(batch * tokens).reshape(batch, tokens) % max(1, vocabulary - 8) + 5
    mask = (torch.arange(tokens) < torch.tensor([[tokens], [7], [9]])).long()
    ids = torch.where(mask.bool(), ids.clamp(max=vocabulary - 1), model.encoder.pad_id)
    word_mask = torch.arange(words) < torch.tensor([[words], [3], [4]])
    word_starts = (torch.arange(words) + 1) * word_mask
    if not model.reads_word_features:
        return ids, mask, word_starts, word_mask
    features = torch.arange(batch * words * WORD_FEATURE_COLUMNS) % WORD_FEATURE_ROWS
    features = features.reshape(batch, words, WORD_FEATURE_COLUMNS) * word_mask[:, :, None]
    return ids, mask, word_starts, word_mask, features


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings and output of the exporter and the optimiser: what matters is checked."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
