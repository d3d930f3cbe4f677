"""What the processes of `forked.py` use, imported once for all of them."""

import sentence_transformers  # noqa: F401
import torch.distributed  # noqa: F401
import transformers.models.bert.modeling_bert  # noqa: F401

import manyheads.cli
import manyheads.training  # noqa: F401
