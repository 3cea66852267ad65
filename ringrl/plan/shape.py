"""Sizes of a model from its config.json alone: parameters, active weights, FLOPs, cached values.

    FLOPs of a forward pass = 2 x (active weights of the layers) x tokens + 2 x (weights of the head) x trained tokens
                              + 2 x heads x (d_qk + d_v) x layers x Σ n (n + 1) / 2   over sequences of n tokens

top_k of E experts are active; an embedding is looked up, not multiplied. An update costs three forward passes.
Parameter counts equal those of transformers' models exactly (`tests/plan/test_shape.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ringrl.errors import ConfigError
from ringrl.models.families import refusal
from ringrl.models.folder import read_object

# separate projections for q, k and v
SEPARATE = ("llama", "mistral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "mixtral", "olmoe")
LATENT = ("deepseek_v2", "deepseek_v3")  # MLA
FUSED = ("bailing_moe", "bailing_moe_v2")  # one projection for q, k and v; releases of 2.0 use either name
HEAD_NORM = ("qwen3", "qwen3_moe")  # queries and keys are normalised per head
ROW_NORM = ("olmoe",)  # queries and keys are normalised over all heads together
DENSE = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class Cost:
    """Constants of the FLOPs of a forward pass."""

    layers: float  # active weights of the layers, with top_k of E experts
    head: int  # weights of the output head
    pair: int  # attention FLOPs per pair of query and key, over all layers

    @property
    def of_pairs(self) -> float:
        """What a sequence of n tokens costs in attention, in n², over what a token costs in the layers' matrices."""
        return self.pair / (4 * self.layers)

    def forward(self, lengths: Sequence[float], trained: float) -> tuple[float, float]:
        """FLOPs of one pass over sequences of these lengths: (layers, head), the head on `trained` tokens only."""
        pairs = sum(n * (n + 1) / 2 for n in lengths)
        return 2 * self.layers * sum(lengths) + self.pair * pairs, 2.0 * self.head * trained

    def update(self, lengths: Sequence[float], trained: float, recompute: bool) -> tuple[float, float]:
        """FLOPs of forward and backward: (those of the model, those computed, which include recomputation)."""
        layers, head = self.forward(lengths, trained)
        return 3 * (layers + head), (3 + recompute) * layers + 4 * head


@dataclass(frozen=True)
class Attention:
    """One layer's attention."""

    heads: int
    qk: int  # width of a query and a key
    v: int  # width of a value
    weights: int  # parameters in matrices
    vectors: int  # parameters in norms and biases
    normed: int  # values per token that pass a norm inside attention
    kept: int  # values per token saved for backward, besides norms, input and output
    cached: int  # values per token in the KV cache
    kv_heads: int  # tensor parallelism can split the cache into at most this many parts; 1 for MLA


@dataclass(frozen=True)
class Shape:
    """Sizes of a decoder. Widths are those of gated MLPs: three matrices [hidden, width]."""

    model_type: str
    hidden: int
    vocab: int
    tied: bool
    layers: int
    moe_layers: int
    attention: Attention
    dense_width: int  # in layers without experts
    expert_width: int
    experts: int
    top_k: int
    shared_width: int  # sum over the shared experts
    shared_gate: bool  # whether shared experts have a gate [1, hidden], as in Qwen2-MoE

    @property
    def expert(self) -> int:
        return 3 * self.hidden * self.expert_width

    @property
    def tensors(self) -> int:
        """In a checkpoint, about: an expert has three."""
        return 3 * self.moe_layers * self.experts + 8 * self.layers + 3

    @property
    def routed(self) -> int:
        """Parameters in routed experts."""
        return self.moe_layers * self.experts * self.expert

    @property
    def outside(self) -> int:
        """Parameters outside the routed experts."""
        h, dense = self.hidden, self.layers - self.moe_layers
        vectors = self.layers * (self.attention.vectors + 2 * h) + h
        embeddings = self.vocab * h * (1 if self.tied else 2)
        return self._matrices(0) + dense * 3 * h * self.dense_width + vectors + embeddings

    @property
    def total(self) -> int:
        return self.outside + self.routed

    @property
    def active(self) -> int:
        """Parameters used for a token, both embeddings included."""
        return self.outside + self.moe_layers * self.top_k * self.expert

    @property
    def cost(self) -> Cost:
        a, dense = self.attention, self.layers - self.moe_layers
        layers = self._matrices(self.top_k) + dense * 3 * self.hidden * self.dense_width
        return Cost(float(layers), self.vocab * self.hidden, 2 * a.heads * (a.qk + a.v) * self.layers)

    def _matrices(self, experts: int) -> int:
        """Matrix weights over all layers, `experts` routed experts in each; without the MLPs of dense layers."""
        router = self.experts + self.shared_gate
        moe = router * self.hidden + 3 * self.hidden * self.shared_width + experts * self.expert
        return self.layers * self.attention.weights + self.moe_layers * moe


@cache
def pair_cost(model: str) -> float:
    """As `Cost.of_pairs`; 0 for a model whose shape is not known here, whose rows are then balanced by their tokens."""
    try:
        return read_shape(model).cost.of_pairs
    except ConfigError:
        return 0.0


def read_shape(model: str) -> Shape:
    """The shape of a model folder, a config.json, or a hub name whose config.json is in the local hub cache.

    Raises:
        ConfigError: there is no such file, or the model family is unknown.
    """
    file = find_config(model)
    raw = read_object(file)
    if raw.get("model_type") not in (*SEPARATE, *LATENT, *FUSED):
        got = refusal(raw) and f", which cannot be trained ({refusal(raw)})"
        raise ConfigError(f"{file}: model_type: got {raw.get('model_type')!r}{got}, expected one of "
                          f"{', '.join((*SEPARATE, *LATENT, *FUSED))}")  # fmt: skip
    try:
        return _shape(raw)
    except KeyError as e:
        raise ConfigError(f"{file}: {e.args[0]}: missing, expected with model_type {raw['model_type']}") from None


LOCAL = ("models/", "runs/")  # folders of the README, which look like names on the hub


def find_config(model: str) -> Path:
    """Path of the config.json. Raises ConfigError when there is none."""
    path = Path(model)
    if path.is_file() and path.suffix == ".json":
        return path
    if path.is_dir():
        if (path / "config.json").is_file():
            return path / "config.json"
        raise ConfigError(f"{model}: no config.json in this folder")
    on_hub = model.count("/") == 1 and not model.startswith((".", "/", *LOCAL))
    if on_hub:
        from huggingface_hub import try_to_load_from_cache

        if isinstance(cached := try_to_load_from_cache(model, "config.json"), str):
            return Path(cached)
    advice = (f"of a model on the hub, `hf download {model} config.json` first" if on_hub else
              f"`hf download OWNER/NAME config.json --local-dir {model}` fetches that of the model which it "
              f"is, or which it will be made from")  # fmt: skip
    raise ConfigError(f"model: got {model}, expected a folder with config.json or the path of one; {advice}")


def _shape(c: dict[str, Any]) -> Shape:
    """Raises KeyError for a missing key."""
    kind, layers = c["model_type"], c["num_hidden_layers"]
    moe = kind not in DENSE
    experts = _first(c, "num_experts", "n_routed_experts", "num_local_experts") if moe else 0
    width = c.get("moe_intermediate_size") or c["intermediate_size"]
    return Shape(
        model_type=kind, hidden=c["hidden_size"], vocab=c["vocab_size"], tied=bool(c.get("tie_word_embeddings")),
        layers=layers, moe_layers=_moe_layers(c) if moe else 0, attention=_attention(c),
        dense_width=c.get("intermediate_size") or 0, expert_width=width if moe else 0, experts=experts,
        top_k=c["num_experts_per_tok"] if moe else 0, shared_width=_shared_width(c, width) if moe else 0,
        shared_gate=kind == "qwen2_moe",
    )  # fmt: skip


def _shared_width(c: dict[str, Any], width: int) -> int:
    if c["model_type"] == "qwen2_moe":
        return int(c["shared_expert_intermediate_size"])
    expert_width = c.get("moe_shared_expert_intermediate_size") or width
    return expert_width * (c.get("num_shared_experts") or c.get("n_shared_experts") or 0)


def _moe_layers(c: dict[str, Any]) -> int:
    layers = range(c["num_hidden_layers"])
    if c["model_type"] in ("qwen2_moe", "qwen3_moe"):
        step, dense = c.get("decoder_sparse_step") or 1, c.get("mlp_only_layers") or ()
        return sum(i not in dense and (i + 1) % step == 0 for i in layers)
    return len(layers) - min(c.get("first_k_dense_replace") or 0, len(layers))


def _attention(c: dict[str, Any]) -> Attention:
    kind, hidden, heads = c["model_type"], c["hidden_size"], c["num_attention_heads"]
    if kind in LATENT:
        return _latent(c, hidden, heads)
    kv = c.get("num_key_value_heads") or heads
    d = c.get("head_dim") or hidden // heads
    q, k = heads * d, kv * d
    qkv_bias = kind == "qwen2" or c.get("qkv_bias", kind == "qwen2_moe")
    qkv_bias = qkv_bias or c.get("use_qkv_bias") or c.get("attention_bias")
    out_bias = c.get("use_bias") or (c.get("attention_bias") and kind not in ("qwen2", "qwen2_moe"))
    vectors = (q + 2 * k) * bool(qkv_bias) + hidden * bool(out_bias)
    row_norm, head_norm = kind in ROW_NORM, kind in HEAD_NORM or (kind in FUSED and c.get("use_qk_norm"))
    vectors += q + k if row_norm else 2 * d if head_norm else 0
    # rotated queries and keys, then values; those of a fused projection keep its whole output alive
    kept = q + k + (q + 2 * k if kind in FUSED else k)
    return Attention(heads, d, d, hidden * (q + 2 * k) + q * hidden, vectors, (q + k) * bool(row_norm or head_norm),
                     kept, 2 * k, kv)  # fmt: skip


def _latent(c: dict[str, Any], hidden: int, heads: int) -> Attention:
    rank, low, rope = c.get("q_lora_rank") or 0, c["kv_lora_rank"], c["qk_rope_head_dim"]
    qk, v = c["qk_nope_head_dim"] + rope, c["v_head_dim"]
    queries = hidden * rank + rank * heads * qk if rank else hidden * heads * qk
    up = heads * (c["qk_nope_head_dim"] + v)
    weights = queries + hidden * (low + rope) + low * up + heads * v * hidden
    bias = bool(c.get("attention_bias"))
    vectors = rank + low + bias * (rank + low + rope + hidden)
    return Attention(heads, qk, v, weights, vectors, rank + low, 2 * heads * qk + up, low + rope, 1)


def _first(c: dict[str, Any], *keys: str) -> int:
    for key in keys:
        if c.get(key) is not None:
            return int(c[key])
    raise KeyError(keys[0])
