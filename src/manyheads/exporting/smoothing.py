"""Large values of single channels, moved from activations into weights before they become int8.

Dynamic int8 scales a product's input by the range of the whole tensor, so that one channel with
large values costs all others their precision. A product stays the same if a channel of its input is
divided by a number and that row of the weight is multiplied by it (Xiao et al., 2023,
"SmoothQuant"). Normalisations divide by their own weights, at no cost; a sum that reads the same
tensor gets it multiplied back. What leaves a GELU has to be divided by an operator of its own, so
only channels far above the others are.

Axes: B sentences, T tokens, H channels, N outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manyheads.exporting.graph import ENCODER, HEAD_LAYERS
from manyheads.inference.backends.onnx import OnnxBackend
from manyheads.text import Batch

if TYPE_CHECKING:
    import onnx

Floats = NDArray[np.float32]

_NORMS = ("LayerNormalization",)
_GELUS = ("Gelu", "FastGelu")
_PRODUCTS = ("MatMul", "Attention")
_SHARE = 0.5
"""How much of a channel's range goes into the weights, as an exponent: the paper's."""
_USUAL = 2.0
"""How many times the median range a channel may have behind a GELU."""
_LARGEST = 32.0
"""By how much one is divided at most, since its weights then cost the others' their precision."""
_SMALLEST = 1e-5


class Place(NamedTuple):
    """A tensor whose channels can be divided, and who reads it."""

    tensor: str
    node: onnx.NodeProto
    """Its source."""
    products: Sequence[onnx.NodeProto]
    """The products that become int8, with weights [H, N] of their own."""
    others: Sequence[onnx.NodeProto]


def smooth(
    graph: onnx.ModelProto, batches: Sequence[Batch], threads: int | None = None
) -> onnx.ModelProto:
    """Return a graph with the same results, up to rounding, whose products lose less in int8.

    Args:
        graph: the fused graph in float32; it is not changed.
        batches: sentences on which the channels' ranges are measured. Without any the graph stays
            as it is.
        threads: processor threads; default, all available cores.
    """
    import onnx

    smoothed = onnx.ModelProto()
    smoothed.CopyFrom(graph)
    weights = {tensor.name: tensor for tensor in smoothed.graph.initializer}
    places = list(_places(smoothed.graph, weights)) if batches else []
    if not places:
        return smoothed
    ranges = _ranges(graph, [place.tensor for place in places], batches, threads)
    editor = _Editor(smoothed.graph, weights)
    for place in places:
        if place.node.op_type in _GELUS:
            editor.divide_by_operator(place, _outstanding(ranges[place.tensor]))
        else:
            rows = np.max([editor.rows(product) for product in place.products], axis=0)
            editor.divide_by_weights(place, _balanced(ranges[place.tensor], rows))
    editor.remove_unread()
    return smoothed


def _places(graph: onnx.GraphProto, weights: Mapping[str, Any]) -> Iterator[Place]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        tensor = node.output[0]
        is_norm = node.op_type in _NORMS and all(name in weights for name in node.input[1:])
        if tensor in outputs or not (is_norm or node.op_type in _GELUS):
            continue
        products = [one for one in readers.get(tensor, []) if _divides(one, tensor, weights)]
        others = [one for one in readers.get(tensor, []) if one not in products]
        if products:
            yield Place(tensor, node, products, others)


def _divides(node: onnx.NodeProto, tensor: str, weights: Mapping[str, Any]) -> bool:
    """Return whether a node is one of the transformer's products, with a tensor on its left."""
    # As in `quantization`: a fused operator has a name without a path.
    inside = not node.name.startswith("/") or node.name.startswith((ENCODER, HEAD_LAYERS))
    return (
        inside
        and node.op_type in _PRODUCTS
        and node.input[0] == tensor
        and node.input[1] in weights
        and len(weights[node.input[1]].dims) == 2
        and tensor not in node.input[1:]
    )


def _ranges(
    graph: onnx.ModelProto, tensors: Sequence[str], batches: Sequence[Batch], threads: int | None
) -> dict[str, Floats]:
    """Measure the largest absolute value of each channel, [H] by tensor."""
    import onnx

    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors
    )
    backend = OnnxBackend(watched.SerializeToString(), name="the float32 graph", threads=threads)
    found: dict[str, Floats] = {}
    for batch in batches:
        outputs = backend.run(batch)
        for name in tensors:
            values = outputs[name]
            largest = np.abs(values.reshape(-1, values.shape[-1])).max(axis=0)
            found[name] = np.maximum(found[name], largest) if name in found else largest
    return found


def _balanced(ranges: Floats, rows: Floats) -> Floats:
    """Return the divisors, [H], that share the ranges of a tensor and of its weights' rows."""
    left, right = np.maximum(ranges, _SMALLEST), np.maximum(rows, _SMALLEST)
    divisors: Floats = (left**_SHARE / right ** (1 - _SHARE)).astype(np.float32)
    return divisors


def _outstanding(ranges: Floats) -> Floats:
    """Return the divisors, [H], that bring single large channels down to the usual range."""
    usual = max(_USUAL * float(np.median(ranges)), _SMALLEST)
    divisors: Floats = np.clip(ranges / usual, 1, _LARGEST).astype(np.float32)
    return divisors


class _Editor:
    """Divides channels of tensors in a graph."""

    def __init__(self, graph: onnx.GraphProto, weights: dict[str, Any]) -> None:
        self._graph, self._weights = graph, weights

    def rows(self, product: onnx.NodeProto) -> Floats:
        """Return the largest absolute value of each row of a product's weight, [H]."""
        rows: Floats = np.abs(self._value(product.input[1])).max(axis=1)
        return rows

    def divide_by_weights(self, place: Place, divisors: Floats) -> None:
        """Let a normalisation divide, and multiply for those readers that are no product."""
        for index, name in enumerate(place.node.input[1:], start=1):
            place.node.input[index] = self._add(name, self._value(name) / divisors)
        self._multiply(place.products, divisors)
        if place.others:
            self._insert(place, divisors, place.others)

    def divide_by_operator(self, place: Place, divisors: Floats) -> None:
        """Divide a tensor before products read it."""
        if (divisors > 1).any():
            self._multiply(place.products, divisors)
            self._insert(place, np.reciprocal(divisors), place.products)

    def remove_unread(self) -> None:
        """Remove the weights that no node reads any more."""
        read = {name for node in self._graph.node for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _multiply(self, products: Sequence[onnx.NodeProto], divisors: Floats) -> None:
        for product in products:
            weight = self._value(product.input[1]) * divisors[:, None]
            product.input[1] = self._add(product.input[1], weight)

    def _insert(self, place: Place, factors: Floats, readers: Sequence[onnx.NodeProto]) -> None:
        """Let some readers of a tensor read it multiplied."""
        import onnx

        name = f"{place.tensor}_smoothed"
        inputs = [place.tensor, self._add(name, factors)]
        nodes = self._graph.node
        index = next(i for i, node in enumerate(nodes) if place.tensor in node.output)
        nodes.insert(index + 1, onnx.helper.make_node("Mul", inputs, [name], name=name))
        for reader in readers:
            reader.input[:] = [name if given == place.tensor else given for given in reader.input]

    def _value(self, name: str) -> Floats:
        import onnx

        value: Floats = onnx.numpy_helper.to_array(self._weights[name])
        return value

    def _add(self, name: str, value: NDArray[Any]) -> str:
        """Add a weight, under a new name that begins with another's; returns the name."""
        import onnx

        name = f"{name}_{len(self._weights)}"
        tensor = onnx.numpy_helper.from_array(value.astype(np.float32), name)
        self._weights[name] = tensor
        self._graph.initializer.append(tensor)
        return name
