"""Everything that ringrl knows of transformers beyond its documented interface, for the versions it was tested with.

Besides, `bailing_moe` overrides hooks of model classes that begin with an underscore, as every model of transformers
does. `tests/models/test_transformers_internals.py` fails when a name or meaning used here has changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.integrations.moe import _default_apply_gate
from transformers.modeling_outputs import MoeModelOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ringrl.errors import DataError, require

require("transformers", transformers.__version__, "5.19", "5.24")


def attention_function(config: PreTrainedConfig, eager: Callable[..., Any]) -> Callable[..., Any]:
    """What `attn_implementation` names: its name is kept nowhere else."""
    return ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager)


def router_modules(lm: PreTrainedModel) -> tuple[dict[str, nn.Module], int]:
    """The modules, by name, one of whose outputs transformers records as `router_logits`, and which of their outputs
    that is: it lists them nowhere else.

    Raises:
        DataError: several kinds of modules are recorded under that name.
    """
    recorder = (getattr(lm.base_model, "_can_record_outputs", None) or {}).get("router_logits")
    if recorder is None:
        return {}, 0
    if isinstance(recorder, list):
        raise DataError(f"model_type {lm.config.model_type}: got router logits of {len(recorder)} kinds of modules, "
                        f"expected one")  # fmt: skip
    kind, name = getattr(recorder, "target_class", recorder), getattr(recorder, "class_name", None)
    modules = {
        at: m
        for at, m in lm.base_model.named_modules()
        if (isinstance(m, kind) if kind else type(m).__name__.endswith(str(name)))
    }
    return modules, getattr(recorder, "index", 0)


class _Output(MoeModelOutputWithPast):
    """The output of a body of any family, which has no more in it than hidden states."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _Given(nn.Module):
    """Stands for the body of a model: says that these hidden states are its output, and is the body otherwise."""

    def __init__(self, body: nn.Module, hidden: torch.Tensor) -> None:
        super().__init__()
        self.__dict__ |= {"body": body, "output": _Output(last_hidden_state=hidden)}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["body"], name)

    def forward(self, *_: Any, **__: Any) -> MoeModelOutputWithPast:
        return self.output


def logits_of(lm: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """[m, H] final hidden states -> [m, V] logits, by the model's own forward: what it does around its output
    embeddings (scales, caps, slices) is written nowhere else.

    A copy of the outermost object shares all its parts but the body; the model itself does not change.
    """
    shell = copy.copy(lm)
    assert lm.base_model_prefix in lm._modules, f"{type(lm).__name__}: its body is no part of it"
    shell._modules = {**lm._modules, lm.base_model_prefix: _Given(lm.base_model, hidden[None])}
    ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
    return shell.forward(input_ids=ids, use_cache=False).logits[0]


def has_plain_experts(experts: Any) -> bool:
    """Whether fused experts compute down(act(gate(x)) up(x)) from [E, 2I, H] and [E, H, I], without biases."""
    usual = experts_layout(experts) == (True, False, False, True)
    return usual and getattr(type(experts), "_apply_gate", None) is _default_apply_gate


def experts_layout(experts: Any) -> tuple[bool | None, ...]:
    """(gate and up one after the other, transposed, with biases, gated); None for what a class does not say."""
    return tuple(getattr(experts, key, None) for key in ("is_concatenated", "is_transposed", "has_bias", "has_gate"))
