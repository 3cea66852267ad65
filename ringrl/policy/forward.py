"""From a causal language model to per-token statistics of the trained tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

import ringrl.models.attention  # noqa: F401  (registers "packed")
from ringrl.algo.entropy import token_stats
from ringrl.types import MicroBatch


@dataclass(frozen=True)  # no slots: ZeRO-3 looks into outputs through vars()
class TokenStats:
    """Statistics of the n trained tokens of a microbatch, in reading order."""

    logprobs: torch.Tensor  # [n] float32 log-prob of the target, in nats
    entropy: torch.Tensor  # [n] float32 entropy of the whole distribution, in nats
    router_logits: torch.Tensor  # [layers, n, E]; zero layers for a dense model
    zero: torch.Tensor  # scalar 0 that keeps the graph alive when n = 0


class PolicyModule(nn.Module):
    """A causal language model whose forward takes a MicroBatch and returns TokenStats."""

    def __init__(self, lm: PreTrainedModel, temperature: float) -> None:
        super().__init__()
        self.lm = lm
        self.temperature = temperature
        self.top_k = getattr(lm.config, "num_experts_per_tok", 0) or 0
        self.config = lm.config  # DeepSpeed looks for it

    def forward(self, mb: MicroBatch) -> TokenStats:
        packed = {}
        if len(mb.starts) > 1:
            longest = int(mb.starts.diff().max())
            packed = {
                "cu_seq_lens_q": mb.starts,
                "cu_seq_lens_k": mb.starts,
                "max_length_q": longest,
                "max_length_k": longest,
            }
        moe = {"output_router_logits": True} if self.top_k else {}
        out = self.lm.base_model(input_ids=mb.inputs, position_ids=mb.positions, use_cache=False, **moe, **packed)
        hidden = out.last_hidden_state
        keep = mb.trained.flatten()
        logprobs, entropy = token_stats(
            hidden.flatten(0, 1)[keep],
            mb.targets[mb.trained],
            self.lm.get_output_embeddings(),
            self.temperature,
        )
        routers = [r.reshape(keep.numel(), -1)[keep] for r in (out.router_logits if self.top_k else ())]
        router_logits = torch.stack(routers) if routers else hidden.new_zeros(0, int(keep.sum()), 1)
        return TokenStats(logprobs, entropy, router_logits, hidden.sum() * 0.0)


def load_lm(path: str, dtype: str, attention: str) -> PreTrainedModel:
    """A causal language model from a Hugging Face folder."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), attn_implementation=attention)
