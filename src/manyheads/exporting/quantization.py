"""Dynamic int8: weights as 8-bit integers per channel, activations quantised at run time.

Weights are converted once. Each product's input is scaled to 8 bits at run time, by the range of
the whole tensor, from which single large channels were taken before (`smoothing`). A sentence's
result therefore depends a little on the others of its batch, as the gate measures
(`manyheads.exporting.gate`). The heads' classifiers stay in float32: they are a
thousandth of the work, and no layer after them evens out their errors. A neck is more: a small
BiLSTM takes a tenth of the time in float32, and less than half of that in int8.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from manyheads.exporting.graph import ENCODER, HEAD_LAYERS, quiet
from manyheads.inference.backends.onnx import import_onnxruntime

if TYPE_CHECKING:
    import onnx

_PRODUCTS = ("MatMul", "Attention", "Gemm")
LAYERS = (ENCODER, HEAD_LAYERS)
"""Prefixes of the names of the transformer's nodes: the encoder's, and the heads' own."""
NECKS = "model/[^/]+/neck/"
"""Prefix of the names of a neck's nodes, after the slash."""
_LOOKUPS = ("Gather", "EmbedLayerNormalization")


@dataclass(frozen=True, slots=True)
class Setting:
    """Which parts of the encoder are computed in int8."""

    name: str
    necks: bool = False
    """Whether the heads' own networks between encoder and classifier are int8."""
    embeddings: bool = True
    """Whether the embedding table is int8; it then takes a quarter of the memory."""
    reduce_range: bool = False
    """Whether weights have 7 bits. Without VNNI instructions, pairs of 8-bit products are added in
    16 bits and can overflow; those of 7 bits cannot. For 8-bit weights, `OnnxBackend` makes
    onnxruntime use unsigned ones on such processors, whose sums are exact but slower."""
    feed_forward_outputs: bool = True
    """Whether the second product of each feed-forward block is int8; its inputs have the widest
    range in a transformer (Bondarenko et al., 2021, "Understanding and overcoming the challenges
    of efficient transformer quantization")."""
    float_layers: float = 0.0
    """Share of the layers, from the last, that stay float32, rounded up."""


class Product(NamedTuple):
    """A product with a weight, in one of the transformer's layers."""

    name: str
    layer: int
    """The number of layers below it. The heads' own layers stand on the encoder's lower ones."""
    closes_layer: bool
    """Whether it is the second of a feed-forward block."""


class LayerCount:
    """Counts the layers below each node of a graph, whose branches come in any order."""

    def __init__(self) -> None:
        self._below: dict[str, int] = {}

    def of(self, inputs: Iterable[str]) -> int:
        """Return the number of layers below a node, by the names of its inputs."""
        return max((self._below.get(name, 0) for name in inputs), default=0)

    def pass_on(self, outputs: Iterable[str], layers: int) -> None:
        """Record the number of layers below a node's outputs."""
        self._below.update(dict.fromkeys(outputs, layers))


SETTINGS = (
    Setting("everything but the classifiers, 7-bit weights", necks=True, reduce_range=True),
    Setting("everything but the classifiers", necks=True),
    Setting("everything but the heads, 7-bit weights", reduce_range=True),
    Setting("everything but the heads"),
    Setting("all but the embedding table", embeddings=False),
    Setting("all but the embedding table and the last layer", embeddings=False, float_layers=1e-9),
    Setting(
        "all but the embedding table and feed-forward outputs",
        embeddings=False,
        feed_forward_outputs=False,
    ),
    Setting(
        "the first half of the layers, without feed-forward outputs",
        embeddings=False,
        feed_forward_outputs=False,
        float_layers=0.5,
    ),
)
"""From the fastest to the mildest. The first is right on processors with and without VNNI alike: as
fast as weights of 8 bits with it, a sixth faster without (see docs/benchmarks.md)."""


def settings_for(graph: onnx.ModelProto) -> tuple[Setting, ...]:
    """Return the settings that differ for a graph."""
    has_necks = any(is_of_neck(node.name) for node in graph.graph.node)
    return tuple(setting for setting in SETTINGS if has_necks or not setting.necks)


def is_of_neck(name: str) -> bool:
    """Return whether a node belongs to the network between encoder and classifier of a head."""
    return re.match(f"/{NECKS}", name) is not None


def float_products(
    products: Sequence[Product], feed_forward_outputs: bool, float_layers: float
) -> Iterator[str]:
    """Yield the names of the products that stay in float32.

    Args:
        products: all products.
        feed_forward_outputs: whether products that close a layer are int8.
        float_layers: share of the layers, from the last, that stay float32, rounded up.
    """
    layers = max((one.layer + 1 for one in products if one.closes_layer), default=0)
    first_kept = layers - math.ceil(float_layers * layers)
    for one in products:
        if one.layer >= first_kept or (one.closes_layer and not feed_forward_outputs):
            yield one.name


def quantize(graph: onnx.ModelProto, setting: Setting) -> onnx.ModelProto:
    """Return a float32 graph with the products of its encoder in int8."""
    import onnx

    quantization = import_onnxruntime("quantization")
    with tempfile.TemporaryDirectory(prefix="manyheads-export-") as folder, quiet():
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, source)
        quantization.quantize_dynamic(
            source,
            target,
            op_types_to_quantize=[*_PRODUCTS, "LSTM", *(_LOOKUPS if setting.embeddings else ())],
            nodes_to_exclude=list(_kept_in_float32(graph, setting)),
            per_channel=True,
            reduce_range=setting.reduce_range,
            weight_type=quantization.QuantType.QInt8,
            # The types of fused operators' outputs are not inferred; all are float32.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        quantized = onnx.load(target)
    quantized.producer_name, quantized.producer_version = "manyheads", ""
    return quantized


def _kept_in_float32(graph: onnx.ModelProto, setting: Setting) -> Iterator[str]:
    """Yield the names of the nodes that a setting leaves in float32."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    products = []
    layers = LayerCount()
    for node in graph.graph.node:
        layer, closes_layer = layers.of(node.input), False
        # A fused operator has a new name without a path; only the encoder has such products.
        if is_of_neck(node.name):
            if not setting.necks:
                yield node.name
        elif node.name.startswith("/") and not node.name.startswith(LAYERS):
            yield node.name
            # The quantiser first turns a Gemm into a product and a sum.
            yield f"{node.name}_MatMul"
        elif node.op_type in _PRODUCTS:
            shape = next((shapes[name] for name in node.input[1:2] if name in shapes), None)
            if shape is not None:
                closes_layer = node.op_type != "Attention" and shape[0] > shape[1]
                products.append(Product(node.name, layer, closes_layer))
        layers.pass_on(node.output, layer + closes_layer)
    yield from float_products(products, setting.feed_forward_outputs, setting.float_layers)
