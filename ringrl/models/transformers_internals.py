"""Everything that ringrl knows of transformers beyond its documented interface, for the versions it was tested with.

Besides, `bailing_moe` overrides hooks of model classes that begin with an underscore, as every model of transformers
does. `tests/models/test_transformers_internals.py` fails when a name or meaning used here has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ringrl.errors import require

require("transformers", transformers.__version__, "5.19", "5.24")


def attention_function(config: PreTrainedConfig, eager: Callable[..., Any]) -> Callable[..., Any]:
    """What `attn_implementation` names: its name is kept nowhere else."""
    return ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager)


def router_modules(lm: PreTrainedModel) -> dict[str, nn.Module]:
    """The modules, by name, whose first output transformers records as `router_logits`: it lists them nowhere else."""
    recorder = (getattr(lm.base_model, "_can_record_outputs", None) or {}).get("router_logits")
    if recorder is None:
        return {}
    kind, name = getattr(recorder, "target_class", recorder), getattr(recorder, "class_name", None)
    return {
        at: m
        for at, m in lm.base_model.named_modules()
        if (isinstance(m, kind) if kind else type(m).__name__.endswith(str(name)))
    }
