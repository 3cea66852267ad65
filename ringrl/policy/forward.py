"""From a causal language model to per-token statistics of the trained tokens."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

import ringrl.models.attention  # noqa: F401  (registers "packed")
from ringrl.algo.entropy import token_stats
from ringrl.models.families import keeps_state
from ringrl.models.loading import load_config, load_model
from ringrl.models.transformers_internals import logits_of
from ringrl.policy.routers import Routers
from ringrl.types import MicroBatch


@dataclass(frozen=True)  # no slots: ZeRO-3 looks into outputs through vars()
class TokenStats:
    """Statistics of the n trained tokens of a microbatch, in reading order."""

    logprobs: torch.Tensor  # [n] float32 log-prob of the target, in nats
    entropy: torch.Tensor  # [n] float32 entropy of the whole distribution, in nats
    router_logits: torch.Tensor  # [layers, n, E]; zero layers for a dense model
    chosen: torch.Tensor  # [layers, n, top_k] int64 experts taken
    routes: torch.Tensor  # [layers, B L, top_k] int16 experts taken by all tokens of the microbatch
    zero: torch.Tensor  # scalar 0 that keeps the graph alive when n = 0


class PolicyModule(nn.Module):
    """A causal language model whose forward takes a MicroBatch and returns TokenStats."""

    def __init__(self, lm: PreTrainedModel, temperature: float) -> None:
        super().__init__()
        self.lm = lm
        self.temperature = temperature
        self.routers = Routers(lm)
        self.config = lm.config  # DeepSpeed looks for it

    @property
    def moe(self) -> bool:
        return bool(self.routers.modules)

    @property
    def packs(self) -> bool:
        """Whether several sequences may follow one another in a row."""
        return not keeps_state(self.config.to_dict())

    def train(self, mode: bool = True) -> PolicyModule:
        """Only recomputation is left of the model's own train mode: dropout, jitter of routers and sampled experts
        would make the log-probs others than those that sampled."""
        super().train(False)
        self.training = mode
        for layer in self.lm.modules():
            if isinstance(layer, GradientCheckpointingLayer):
                layer.training = mode and layer.gradient_checkpointing
        return self

    def forward(self, mb: MicroBatch, forced: torch.Tensor | None = None) -> TokenStats:
        """forced [layers, B L, top_k]: experts to take instead of the routers' own, -1 for their own."""
        packed = {}
        if len(mb.starts) > 1:
            lengths = mb.starts.diff().tolist()
            starts = mb.starts.to(mb.inputs.device, non_blocking=True)
            packed = {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts, "max_length_q": max(lengths),
                      "max_length_k": max(lengths), "sequence_lengths": lengths}  # fmt: skip
        self.routers.record(forced)
        out = self.lm.base_model(input_ids=mb.inputs, position_ids=mb.positions, use_cache=False, **packed)
        hidden, (logits, chosen) = out.last_hidden_state, self.routers.recorded()
        keep = mb.trained.flatten()
        logprobs, entropy = token_stats(
            hidden.flatten(0, 1)[keep],
            mb.targets[mb.trained],
            partial(logits_of, self.lm),
            self.temperature,
        )
        if not logits:
            nothing = hidden.new_zeros(0, len(logprobs), 1)
            none_chosen = nothing.long()
            return TokenStats(logprobs, entropy, nothing, none_chosen, none_chosen.short(), hidden.sum() * 0.0)
        return TokenStats(
            logprobs,
            entropy,
            torch.stack([r.reshape(keep.numel(), -1)[keep] for r in logits]),
            torch.stack([c.reshape(keep.numel(), -1)[keep] for c in chosen]),
            torch.stack([c.reshape(keep.numel(), -1) for c in chosen]).short(),
            hidden.sum() * 0.0,
        )


def load_lm(path: str, dtype: str, attention: str) -> PreTrainedModel:
    """A causal language model from a Hugging Face folder, without dropout: log-probs must not be left to chance.

    Raises:
        DataError: the folder is not whole, or transformers does not know the architecture or its attention.
    """
    config = load_config(path)
    for key, value in config.to_dict().items():
        if ("dropout" in key or key.endswith("pdrop")) and isinstance(value, float):
            setattr(config, key, 0.0)
    return load_model(path, config, getattr(torch, dtype), attention)


def to_device(mb: MicroBatch, device: torch.device) -> MicroBatch:
    """All of it but `starts`: the host needs to know the lengths, and asking a GPU for them would wait for it."""
    moved = [f.name for f in fields(mb) if f.name != "starts"]
    return replace(mb, **{name: getattr(mb, name).to(device, non_blocking=True) for name in moved})
