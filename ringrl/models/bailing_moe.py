"""Ling and Ring as models of transformers 5: `BailingMoeForCausalLM` (Ling-lite, Ling-lite-1.5, Ring-lite) and
`BailingMoeV2ForCausalLM` (Ling 2.0 and Ring 2.0: mini, flash, 1T).

Importing this registers model_type "bailing_moe", which releases of both call themselves, and "bailing_moe_v2" with
AutoConfig, AutoModel and AutoModelForCausalLM. The fields of config.json say what is in a model, and what is not
there is not in it, as vLLM reads them; a folder keeps the type that it came with. Everything is Qwen3-MoE's (fused
experts, router, loss, generation) but for

1. one fused projection for queries, keys and values, and no norm on queries and keys;
2. shared experts: one MLP, its output added to the routed experts';
3. the first `first_k_dense_replace` layers, which are dense;
4. gate weights, which stay float32 until the experts' outputs are summed;
5. `norm_head` (Ling-lite of March 2025): logits = hidden · (W / ||W||)ᵀ, one norm per hidden channel, a constant to the
   gradient. It is the hidden state that is divided here, which is the same and makes no copy of W;

and in 2.0

6. an RMSNorm on every head's queries and keys, and a rotary embedding of the first half of a head only;
7. DeepSeek-V3's router: float32 sigmoid scores, of which a frozen bias per expert (float32) chooses, by groups, and
   not weighs, the weights times `routed_scaling_factor`.

The layers of 2.0 that predict further tokens (`num_nextn_predict_layers`, in base models) are left out: transformers
says so when it loads them, and a folder that is written has neither them nor the number.

Folders have the names of the original: `checkpoint names <-> ours` is at the end. As in the original,
`embedding_dropout` and `output_dropout` are read and not applied, and nothing is added to the loss.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, initialization
from transformers.cache_utils import Cache
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.core_model_loading import WeightRenaming
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.qwen3_moe.modeling_qwen3_moe import (
    Qwen3MoeDecoderLayer,
    Qwen3MoeExperts,
    Qwen3MoeForCausalLM,
    Qwen3MoeMLP,
    Qwen3MoeModel,
    Qwen3MoePreTrainedModel,
    Qwen3MoeRMSNorm,
    Qwen3MoeTopKRouter,
    eager_attention_forward,
)
from transformers.utils.output_capturing import OutputRecorder

from ringrl.errors import DataError
from ringrl.models.transformers_internals import attention_function

__all__ = ["BailingMoeConfig", "BailingMoeForCausalLM", "BailingMoeV2Config", "BailingMoeV2ForCausalLM"]

# the two kinds of router, and what else their fields may be
SOFTMAX = {"score_function": ("softmax", None), "moe_router_enable_expert_bias": (False,), "n_group": (None, 1),
           "routed_scaling_factor": (1.0,)}  # fmt: skip
SIGMOID = {"score_function": ("sigmoid",), "moe_router_enable_expert_bias": (True,), "use_rmsnorm": (True,)}


@strict
class BailingMoeConfig(PreTrainedConfig):
    """config.json of the original. Its defaults too (no released model's), but a vocabulary that has the pad token."""

    model_type = "bailing_moe"
    attribute_map = {"num_local_experts": "num_experts"}  # noqa: RUF012  (DeepSeek-V3's name)
    keys_to_ignore_at_inference = ("past_key_values",)

    architectures: Any = None  # list of str
    vocab_size: int = 126464
    hidden_size: int = 1024
    intermediate_size: int | None = None  # width of the dense layers
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int = 0
    head_dim: Any = None  # int; None in the file: hidden_size / num_attention_heads
    hidden_act: str = "silu"
    use_qkv_bias: bool = False
    use_bias: bool = True  # in the attention's output projection
    rms_norm_eps: float = 1e-5
    norm_head: bool = False
    tie_word_embeddings: bool = False
    embedding_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    output_dropout: float | int = 0.1
    initializer_range: float = 0.02
    max_position_embeddings: int = 16384
    rope_theta: float | int = 10000.0  # written for readers that do not know rope_parameters
    rope_parameters: Any = None  # dict
    use_cache: bool = True
    use_sliding_window: bool = False
    sliding_window: int | None = 4096
    num_experts: int = 16
    num_shared_experts: int | None = 0
    num_experts_per_tok: int = 2
    norm_topk_prob: bool = True
    moe_intermediate_size: Any = None  # int
    first_k_dense_replace: int = 0
    use_qk_norm: bool = False  # this and what follows are 2.0's; its other fields are written only if read
    use_rmsnorm: bool = True  # whether that norm is an RMSNorm; vLLM reads it
    score_function: str | None = "softmax"
    moe_router_enable_expert_bias: bool = False
    routed_scaling_factor: float | int = 1.0
    output_router_logits: bool = False
    pad_token_id: int | None = 126081
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.head_dim = self.head_dim or self.hidden_size // self.num_attention_heads
        self.sliding_window = self.sliding_window if self.use_sliding_window else None
        self.architectures = self.architectures or [MODELS[self.model_type]]
        if kwargs.get("rotary_dim"):  # 1T's word for it
            kwargs["partial_rotary_factor"] = kwargs["rotary_dim"] / self.head_dim
        if self.score_function == "sigmoid":
            kwargs |= {key: kwargs.get(key) or 1 for key in ("n_group", "topk_group")}
        if "num_nextn_predict_layers" in kwargs:
            kwargs["num_nextn_predict_layers"] = 0
        super().__post_init__(**kwargs)
        self.rope_theta = self.rope_parameters["rope_theta"]


@strict
class BailingMoeV2Config(BailingMoeConfig):
    model_type = "bailing_moe_v2"


MODELS = {"bailing_moe": "BailingMoeForCausalLM", "bailing_moe_v2": "BailingMoeV2ForCausalLM"}


class BailingMoeAttention(nn.Module):
    def __init__(self, config: BailingMoeConfig, layer_idx: int) -> None:
        super().__init__()
        self.config, self.layer_idx, self.is_causal = config, layer_idx, True
        self.head_dim, self.scaling = config.head_dim, config.head_dim**-0.5
        self.attention_dropout, self.sliding_window = config.attention_dropout, config.sliding_window
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.num_key_value_groups = heads // kv_heads
        self.sizes = [heads, kv_heads, kv_heads]
        self.query_key_value = nn.Linear(config.hidden_size, sum(self.sizes) * self.head_dim, bias=config.use_qkv_bias)
        if config.use_qk_norm:
            self.query_layernorm = Qwen3MoeRMSNorm(self.head_dim, config.rms_norm_eps)
            self.key_layernorm = Qwen3MoeRMSNorm(self.head_dim, config.rms_norm_eps)
        self.dense = nn.Linear(heads * self.head_dim, config.hidden_size, bias=config.use_bias)

    def forward(
        self,
        hidden_states: torch.Tensor,  # [B, L, H]
        position_embeddings: tuple[torch.Tensor, torch.Tensor],  # cos and sin [B, L, rotated part of head_dim]
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None = None,
        **kwargs: Any,  # boundaries of packed sequences, for the attention
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        rows = hidden_states.shape[:-1]
        qkv = self.query_key_value(hidden_states).view(*rows, -1, self.head_dim).transpose(1, 2)
        query, key, value = qkv.split(self.sizes, dim=1)
        if self.config.use_qk_norm:
            query, key = self.query_layernorm(query), self.key_layernorm(key)
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend = attention_function(self.config, eager_attention_forward)
        dropout = self.attention_dropout if self.training else 0.0
        out, weights = attend(self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling,
                              sliding_window=self.sliding_window, **kwargs)  # fmt: skip
        return self.dense(out.reshape(*rows, -1)), weights


class BailingMoeGate(Qwen3MoeTopKRouter):
    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[T, H] -> logits [T, E], gate weights [T, top_k] float32, chosen experts [T, top_k]."""
        logits = F.linear(hidden_states, self.weight)
        weights, chosen = logits.softmax(-1, dtype=torch.float32).topk(self.top_k)
        if self.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        return logits, weights, chosen


class BailingMoeSparseMoeBlock(nn.Module):
    def __init__(self, config: BailingMoeConfig) -> None:
        super().__init__()
        self.experts = Qwen3MoeExperts(config)
        self.gate = (DeepseekV3TopkRouter if config.score_function == "sigmoid" else BailingMoeGate)(config)
        width = getattr(config, "moe_shared_expert_intermediate_size", None) or config.moe_intermediate_size
        shared = width * (config.num_shared_experts or 0)
        self.shared_experts = Qwen3MoeMLP(config, shared) if shared else None

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        flat = hidden_states.flatten(0, -2)
        _, weights, chosen = self.gate(flat)
        out = self.experts(flat, chosen, weights).view_as(hidden_states)
        return out if self.shared_experts is None else out + self.shared_experts(hidden_states)


class BailingMoeDecoderLayer(Qwen3MoeDecoderLayer):
    def __init__(self, config: BailingMoeConfig, layer_idx: int) -> None:
        GradientCheckpointingLayer.__init__(self)  # the parent would build its own parts
        dense = layer_idx < config.first_k_dense_replace
        self.self_attn = BailingMoeAttention(config, layer_idx)
        self.mlp = Qwen3MoeMLP(config, config.intermediate_size) if dense else BailingMoeSparseMoeBlock(config)
        self.input_layernorm = Qwen3MoeRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = Qwen3MoeRMSNorm(config.hidden_size, config.rms_norm_eps)


class BailingMoePreTrainedModel(Qwen3MoePreTrainedModel):
    config: BailingMoeConfig
    config_class = BailingMoeConfig
    _no_split_modules = ("BailingMoeDecoderLayer",)
    _can_record_outputs = {  # noqa: RUF012
        "router_logits": OutputRecorder((BailingMoeGate, DeepseekV3TopkRouter), index=0),
        "hidden_states": BailingMoeDecoderLayer,
        "attentions": BailingMoeAttention,
    }

    _keep_in_fp32_modules_strict = ("e_score_correction_bias",)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, DeepseekV3TopkRouter):
            initialization.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            initialization.zeros_(module.e_score_correction_bias)

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return True  # the parent looks for a decorator in this file, but it is on Qwen3MoeExperts

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # the parent looks for the words of `attention_function` in this file


class BailingMoeModel(BailingMoePreTrainedModel, Qwen3MoeModel):
    def __init__(self, config: BailingMoeConfig) -> None:
        PreTrainedModel.__init__(self, config)  # Qwen3MoeModel would build its own layers
        fields = SIGMOID if MODELS["bailing_moe_v2"] in config.architectures else SOFTMAX
        for key, allowed in fields.items():
            if (value := getattr(config, key, allowed[0])) not in allowed:
                raise DataError(f"config.json: {key}: got {value}, expected {allowed[0]} in {config.architectures[0]}")
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList([BailingMoeDecoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = Qwen3MoeRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = Glm4MoeRotaryEmbedding(config)
        self.gradient_checkpointing = False
        self.post_init()


class NormHead(nn.Linear):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        norm = torch.linalg.vector_norm(self.weight.detach(), dim=0, dtype=torch.float32) + 1e-7  # [H]
        return F.linear((hidden_states / norm).to(hidden_states.dtype), self.weight)


class BailingMoeForCausalLM(BailingMoePreTrainedModel, Qwen3MoeForCausalLM):
    def __init__(self, config: BailingMoeConfig) -> None:
        PreTrainedModel.__init__(self, config)
        self.model = BailingMoeModel(config)
        self.lm_head = (NormHead if config.norm_head else nn.Linear)(config.hidden_size, config.vocab_size, bias=False)
        self.vocab_size, self.num_experts = config.vocab_size, config.num_experts
        self.num_experts_per_tok, self.router_aux_loss_coef = config.num_experts_per_tok, 0.0
        self.post_init()


class BailingMoeV2Model(BailingMoeModel):
    config_class = BailingMoeV2Config


class BailingMoeV2ForCausalLM(BailingMoeForCausalLM):
    config_class = BailingMoeV2Config


NAMES = [
    WeightRenaming(r"word_embeddings\.", "embed_tokens."),
    WeightRenaming(r"\.attention\.", ".self_attn."),
    WeightRenaming(r"\.gate\.expert_bias$", ".gate.e_score_correction_bias"),
    *get_checkpoint_conversion_mapping("qwen2_moe"),  # the experts of a layer <-> two tensors
]
for kind in (BailingMoeConfig, BailingMoeV2Config):
    AutoConfig.register(kind.model_type, kind)
    register_checkpoint_conversion_mapping(kind.model_type, NAMES)
AutoModel.register(BailingMoeConfig, BailingMoeModel)
AutoModel.register(BailingMoeV2Config, BailingMoeV2Model)
# folders of 2.0 may call themselves bailing_moe: `architectures` says which class it is
AutoModelForCausalLM.register(BailingMoeConfig, (BailingMoeForCausalLM, BailingMoeV2ForCausalLM))
AutoModelForCausalLM.register(BailingMoeV2Config, BailingMoeV2ForCausalLM)
