"""Export to OpenVINO, in float32 or static int8.

Static means that nncf measures the scale of every activation on calibration records and stores it
in the file. Unlike with dynamic int8, a sentence's result does not depend on the others of its
batch, and no time is spent on the range of each batch. Large values of single channels are first
moved from activations into weights (Xiao et al., 2023, "SmoothQuant"). The heads' classifiers stay
in float32.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manyheads.errors import RequestError, install
from manyheads.exporting.graph import quiet
from manyheads.exporting.quantization import (
    LAYERS,
    NECKS,
    LayerCount,
    Product,
    float_products,
    is_of_neck,
)
from manyheads.inference import graph_files
from manyheads.inference.backends.openvino import (
    decline_reports,
    import_openvino,
    openvino_core,
)
from manyheads.text import Batch

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True)
class StaticSetting:
    """Which products are computed in int8."""

    name: str
    necks: bool = False
    """Whether the heads' own networks between encoder and classifier are int8."""
    feed_forward_outputs: bool = True
    """Whether the second product of each feed-forward block is int8; its inputs have the widest
    range in a transformer."""
    float_layers: float = 0.0
    """Share of the layers, from the last, that stay float32, rounded up."""


STATIC_SETTINGS = (
    StaticSetting("everything but the classifiers", necks=True),
    StaticSetting("everything but the heads"),
    StaticSetting("all but the last layer", float_layers=1e-9),
    StaticSetting("all but feed-forward outputs", feed_forward_outputs=False),
    StaticSetting(
        "the first half of the layers, without feed-forward outputs",
        feed_forward_outputs=False,
        float_layers=0.5,
    ),
)
"""From the fastest to the mildest."""


def static_settings_for(model: Any) -> tuple[StaticSetting, ...]:
    """Return the settings that differ for a model."""
    has_necks = any(is_of_neck(node.get_friendly_name()) for node in model.get_ordered_ops())
    return tuple(setting for setting in STATIC_SETTINGS if has_necks or not setting.necks)


def check_openvino(*names: str) -> None:
    """Check that the packages of an export to OpenVINO are installed.

    Raises:
        RequestError: one is missing.
    """
    for name in names:
        if find_spec(name) is None:
            raise RequestError(
                f"this format needs the package {name}, which is not installed",
                fix=install("openvino"),
            )


def convert(graph: onnx.ModelProto, folder: Path) -> Any:
    """Read a traced ONNX graph into OpenVINO.

    Args:
        graph: the traced graph. OpenVINO fuses it itself; a graph from onnxruntime's optimiser
            would be slower.
        folder: a folder to work in.
    """
    source = folder / "model.onnx"
    source.write_bytes(graph.SerializeToString())
    # As in `convert_model`, which would report each use to its makers.
    model = openvino_core().read_model(source)
    simplify = import_module("openvino._offline_transformations").apply_moc_transformations
    simplify(model, cf=False, smart_reshape=True)
    # A tensor also has other names, and a file that is read back has them in any order.
    for output, value in zip(model.outputs, graph.graph.output, strict=True):
        output.get_tensor().set_names({value.name})
    return model


def quantize_static(model: Any, batches: Sequence[Batch], setting: StaticSetting) -> Any:
    """Return an OpenVINO model with products in int8.

    Weights have 8 bits. Without VNNI, pairs of products are added in 16 bits and may overflow.
    Weights of 7 bits cannot, but were further from float32 on both kinds of processors (see
    docs/experiments.md). Overflows are detected when a graph is loaded.

    Args:
        model: the model by `convert`; it is not changed.
        batches: calibration records, batched as for prediction.
        setting: the products that are converted.
    """
    names = [value.any_name for value in model.inputs]
    feeds = [batch.feeds(names) for batch in batches]
    kept = float_products(list(products(model)), setting.feed_forward_outputs, setting.float_layers)
    inside = "|".join([*(re.escape(name[1:]) for name in LAYERS), *[NECKS] * setting.necks])
    openvino_core()  # before nncf makes and drops its own
    decline_reports()
    with quiet():  # there is no switch for its progress bars
        nncf: Any = import_module("nncf")
        nncf.set_log_level(logging.ERROR)
        return nncf.quantize(
            model,
            nncf.Dataset(feeds),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(
                # A product that is an output, such as a classifier, has the output's name.
                names=sorted({*kept, *(o.any_name for o in model.outputs)}),
                # Only necks have one, and its name has no path.
                types=[] if setting.necks else ["LSTMSequence"],
                patterns=[f"/(?!{inside}).*"],
                validate=False,
            ),
        )


def files_of(model: Any, backend: str, folder: Path) -> Mapping[str, bytes]:
    """Write a model, and return its files by their names in a model folder."""
    names = graph_files(backend)
    target = folder / names[0]
    target.parent.mkdir(exist_ok=True)
    import_openvino().save_model(model, target, compress_to_fp16=False)
    return {name: (folder / name).read_bytes() for name in names}


def products(model: Any) -> Iterator[Product]:
    """Yield the products of the encoder and of the heads' own layers, in order."""
    layers = LayerCount()
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        layer = layers.of(value.get_node().get_friendly_name() for value in node.input_values())
        closes_layer = False
        if node.get_type_name() == "MatMul" and name.startswith(LAYERS):
            weight = node.input_value(1)
            if weight.get_node().get_type_name() == "Constant":
                rows, columns = weight.get_shape()
                transposed = node.get_attributes()["transpose_b"]
                closes_layer = rows < columns if transposed else rows > columns
                yield Product(name, layer, closes_layer)
        layers.pass_on([name], layer + closes_layer)
