"""Checks of an untrusted graph, before the library that runs it reads a byte of it.

A graph may only compute: its operators are those of transformer encoders and heads, it has no
branches, loops or functions, and all of its numbers are in the file itself. The required fields of
ONNX's protobuf format are parsed here, since the base install does not include `onnx`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

import numpy as np

from manyheads.errors import ModelError, shorten

MAX_ELEMENTS = 1 << 27
"""The most elements of a tensor that a graph may make of constants alone."""

_MAX_XML_DEPTH = 32


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Operators that compute, and nothing else, by domain.
_ONNX_OPERATORS: Mapping[str, frozenset[str]] = {
    "": _names(
        """Abs Add And ArgMax ArgMin Cast CastLike Ceil Clip Compress Concat Constant
        ConstantOfShape Cos CumSum DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Elu
        Equal Erf Exp Expand Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm Greater
        GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization
        IsInf IsNaN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul
        MatMulInteger Max Mean Min Mish Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow
        QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2
        ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
        Reshape Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin
        SimplifiedLayerNormalization Size Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub
        Sum Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor"""
    ),
    "com.microsoft": _names(
        """Attention BiasGelu BiasSplitGelu DequantizeLinear DynamicQuantizeLSTM
        DynamicQuantizeMatMul EmbedLayerNormalization FastGelu FusedMatMul Gelu
        MatMulIntegerToFloat MultiHeadAttention QAttention QEmbedLayerNormalization QuantizeLinear
        QuickGelu RotaryEmbedding SkipLayerNormalization SkipSimplifiedLayerNormalization"""
    ),
}
# Of these, the inputs that say how large the output is.
_SIZED_BY: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Tile": (1,),
    "Pad": (1,),
    "Range": (1,),
    "OneHot": (1,),
}

_OPENVINO_OPERATORS = _names(
    """Abs Add Broadcast Ceiling Clamp Concat Const Convert ConvertLike Cos CumSum Divide Einsum Elu
    Equal Erf Exp FakeQuantize Floor FloorMod GRUSequence Gather GatherElements GatherND Gelu
    Greater GreaterEqual HSigmoid HSwish IsInf IsNaN LSTMSequence Less LessEqual Log LogSoftmax
    LogicalAnd LogicalNot LogicalOr LogicalXor MVN MatMul Maximum Minimum Mish Mod Multiply Negative
    NonZero NormalizeL2 NotEqual OneHot PRelu Pad Parameter Power RNNSequence Range ReLU ReduceL1
    ReduceL2 ReduceLogicalAnd ReduceLogicalOr ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    Reshape Result Roll Round ScaledDotProductAttention ScatterElementsUpdate ScatterNDUpdate
    ScatterUpdate Select ShapeOf Sigmoid Sign Sin Slice SoftMax SoftPlus Softmax Split Sqrt
    SquaredDifference Squeeze StridedSlice Subtract Swish Tanh Tile TopK Transpose Unsqueeze
    VariadicSplit"""
)


def check_onnx(data: bytes, where: str) -> None:
    """Check an ONNX graph before a session is made of it.

    Args:
        data: the file's contents.
        where: the graph's name in an error.

    Raises:
        ModelError: it is not a graph, has an operator that no exported model needs, has parts
            outside of the file, or asks for more memory than its size accounts for.
    """
    try:
        graphs = [_bytes(value) for number, value in _fields(memoryview(data)) if number == 7]
        odd = [number for number, _ in _fields(memoryview(data)) if number in (20, 25)]
        if len(graphs) != 1 or odd:
            raise _refusal("has functions or training steps" if odd else "has no graph", where)
        _check_graph(graphs[0], len(data), where)
    except (IndexError, ValueError, TypeError, OverflowError) as error:
        raise _refusal(f"is not an ONNX graph ({shorten(str(error), 100)})", where) from None


def check_openvino(xml: bytes, weights: bytes, where: str) -> None:
    """Check an OpenVINO graph before it is compiled.

    Args:
        xml: the `.xml` file's contents.
        weights: the `.bin` file's contents.
        where: the graph's name in an error.

    Raises:
        ModelError: as `check_onnx`.
    """
    # Entities could make a small file endless; UTF-16 could hide them.
    if b"\0" in xml or b"<!" in xml:
        raise _refusal("declares entities or is not UTF-8", where)
    depth = 0
    try:
        for event, element in ElementTree.iterparse(BytesIO(xml), ("start", "end")):
            depth += 1 if event == "start" else -1
            if depth > _MAX_XML_DEPTH:
                raise _refusal(f"is nested more than {_MAX_XML_DEPTH} levels deep", where)
            if event == "end" and element.tag == "layer":
                _check_layer(element, len(weights), where)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise _refusal(f"is not an OpenVINO graph ({shorten(str(error), 100)})", where) from None


def _check_layer(layer: ElementTree.Element, weights: int, where: str) -> None:
    kind, version = layer.get("type", ""), layer.get("version", "")
    if kind not in _OPENVINO_OPERATORS or not version.startswith("opset"):
        raise _refusal(f"has the operator {shorten(f'{version}.{kind}')}", where)
    data = layer.find("data")
    if kind == "Const" and data is not None:
        offset, size = int(data.get("offset", 0)), int(data.get("size", 0))
        if not 0 <= offset <= offset + size <= weights:
            raise _refusal("has constants beyond the end of its weights", where)


def _check_graph(graph: memoryview, size: int, where: str) -> None:
    constants: dict[str, list[int]] = {}
    nodes = []
    for number, value in _fields(graph):
        if number == 5:
            name, values = _checked_tensor(_bytes(value), size, where)
            constants[name] = values
        elif number == 15:
            raise _refusal("has sparse tensors", where)
        elif number == 1:
            nodes.append(_Node(_bytes(value), size, where))
    constants.update((node.outputs[0], node.values) for node in nodes if node.outputs)
    for node in nodes:
        allowed = _ONNX_OPERATORS.get("" if node.domain == "ai.onnx" else node.domain, frozenset())
        if node.kind not in allowed:
            name = f"{node.domain}.{node.kind}" if node.domain else node.kind
            raise _refusal(f"has the operator {shorten(name)}", where)
        for i in _SIZED_BY.get(node.kind, ()):
            wanted = constants.get(node.inputs[i], []) if i < len(node.inputs) else []
            if math.prod(max(1, abs(value)) for value in wanted) > MAX_ELEMENTS:
                raise _refusal(f"makes a tensor of shape {shorten(wanted)}", where)


class _Node:
    """The properties of an ONNX operator that are checked."""

    def __init__(self, data: memoryview, size: int, where: str) -> None:
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.kind = self.domain = ""
        self.values: list[int] = []
        """Of a constant, its whole numbers."""
        for number, value in _fields(data):
            if number == 1:
                self.inputs.append(_text(value))
            elif number == 2:
                self.outputs.append(_text(value))
            elif number == 4:
                self.kind = _text(value)
            elif number == 7:
                self.domain = _text(value)
            elif number == 5:
                for part, inner in _fields(_bytes(value)):
                    if part in (6, 11, 22, 23):
                        raise _refusal("has graphs or sparse tensors within operators", where)
                    if part in (5, 10):
                        _, self.values = _checked_tensor(_bytes(inner), size, where)


def _checked_tensor(data: memoryview, size: int, where: str) -> tuple[str, list[int]]:
    """Check a tensor that the file holds; return its name and, of a shape, the whole numbers."""
    name, elements, kind = "", 1, 0
    raw = b""
    values: list[int] = []
    for number, value in _fields(data):
        if number == 1:
            for dimension in _integers(value):
                elements *= dimension
        elif number == 2:
            kind = int(value)
        elif number == 7:
            values += _integers(value)
        elif number == 8:
            name = _text(value)
        elif number == 9 and len(_bytes(value)) <= 128:
            raw = bytes(_bytes(value))
        elif number == 13 or (number == 14 and value):
            raise _refusal("has data outside of the file", where)
    # Every element takes a byte at least, but for types of four bits.
    if not 0 <= elements <= 2 * size:
        raise _refusal("has a tensor with more elements than the file has bytes", where)
    if kind in (6, 7) and raw:
        values = np.frombuffer(raw, "<i4" if kind == 6 else "<i8").tolist()
    return name, values if kind in (6, 7) and elements <= 16 else []


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each field of a protobuf message.

    A value is a whole number, or a view of the bytes of a text, message or packed list.
    """
    place, end = 0, len(data)
    while place < end:
        key, place = _varint(data, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(data, place)
            yield key >> 3, value
        elif kind == 2:
            length, place = _varint(data, place)
            if length > end - place:
                raise ValueError("it is cut")
            yield key >> 3, data[place : place + length]
            place += length
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of type {kind}")
    if place != end:
        raise ValueError("it is cut")


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _integers(value: Any) -> Iterator[int]:
    """Yield the signed 64-bit numbers of a field, packed or single."""
    if isinstance(value, int):
        yield value - (1 << 64) if value >> 63 else value
        return
    place = 0
    while place < len(value):
        number, place = _varint(value, place)
        yield number - (1 << 64) if number >> 63 else number


def _bytes(value: Any) -> memoryview:
    if not isinstance(value, memoryview):
        raise TypeError("a number where a message was expected")
    return value


def _text(value: Any) -> str:
    return bytes(_bytes(value)).decode("utf-8", "replace")


def _refusal(found: str, where: str) -> ModelError:
    return ModelError(
        f"the graph {found}",
        expected="a graph that `manyheads export` wrote",
        fix="Nothing in it was executed. Export the model again, or get it from a source that you "
        "trust.",
        where=where,
    )
