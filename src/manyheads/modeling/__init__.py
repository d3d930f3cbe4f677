"""The torch modules: encoder, heads and model, with saving and loading."""

from __future__ import annotations

from manyheads.modeling.assembly import (
    HEADS,
    backbone_state,
    build_encoder,
    encoder_files,
    make_head_layers,
    model_contents,
    model_of_checkpoint,
    model_of_folder,
    task_specs,
)
from manyheads.modeling.checkpoint import (
    CheckpointContents,
    load_checkpoint,
    newest_intact,
    prune,
    remove_checkpoints,
    save_checkpoint,
)
from manyheads.modeling.checkpoint_values import (
    digest_of_tensor,
    digest_of_values,
    leaves,
    plain,
    pointer,
)
from manyheads.modeling.cpu.allocator import keep_freed_memory
from manyheads.modeling.devices import Compute, choose_compute, choose_device, moved
from manyheads.modeling.encoder import Encoder, longest_input, quiet_loading
from manyheads.modeling.freezing import Freezing, encoder_groups
from manyheads.modeling.head_layers import HeadLayers
from manyheads.modeling.heads import EncoderShape, Features, Head, make_head
from manyheads.modeling.lora import (
    ADAPTERS,
    adapter_state,
    add_adapters,
    check_adapters,
    plain_state,
    with_adapters,
)
from manyheads.modeling.model import ModelInputs, MultiTaskModel
from manyheads.modeling.model_folder import ModelContents, load_model_folder, save_model_folder
from manyheads.modeling.pooling import pool
from manyheads.modeling.pretrained import TOKENIZER, find_encoder, packaged_encoder
from manyheads.modeling.state_dicts import fingerprint, load_state
from manyheads.modeling.student import student_of
from manyheads.modeling.upper_layers import UpperLayers
from manyheads.storage.locate import epoch_path, list_checkpoints, step_path

__all__ = [
    "ADAPTERS",
    "HEADS",
    "TOKENIZER",
    "CheckpointContents",
    "Compute",
    "Encoder",
    "EncoderShape",
    "Features",
    "Freezing",
    "Head",
    "HeadLayers",
    "ModelContents",
    "ModelInputs",
    "MultiTaskModel",
    "UpperLayers",
    "adapter_state",
    "add_adapters",
    "backbone_state",
    "build_encoder",
    "check_adapters",
    "choose_compute",
    "choose_device",
    "digest_of_tensor",
    "digest_of_values",
    "encoder_files",
    "encoder_groups",
    "epoch_path",
    "find_encoder",
    "fingerprint",
    "keep_freed_memory",
    "leaves",
    "list_checkpoints",
    "load_checkpoint",
    "load_model_folder",
    "load_state",
    "longest_input",
    "make_head",
    "make_head_layers",
    "model_contents",
    "model_of_checkpoint",
    "model_of_folder",
    "moved",
    "newest_intact",
    "packaged_encoder",
    "plain",
    "plain_state",
    "pointer",
    "pool",
    "prune",
    "quiet_loading",
    "remove_checkpoints",
    "save_checkpoint",
    "save_model_folder",
    "step_path",
    "student_of",
    "task_specs",
    "with_adapters",
]
