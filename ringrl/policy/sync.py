"""Trainer weights into the rollout engine, and the proof that they arrived.

Every push sends all weights under checkpoint names, checks names and shapes against the start model's files,
and compares the log-probs of a freshly sampled continuation of one fixed prompt on every worker with the
trainer's own. The caller stops at a gap above its limit: a sampler with stale or broken weights trains nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open

from ringrl.algo.pack import Strand, pack, strand
from ringrl.errors import RingError
from ringrl.policy.engine import Policy
from ringrl.rollout.engine import RolloutEngine, Sampling
from ringrl.types import Prompt, Sample

PROBE_TOKENS = 32  # sampled per worker and sync


@dataclass(frozen=True, slots=True)
class Parity:
    """What one push showed."""

    gap: float  # largest difference between trainer and worker log-probs, in nats
    shift: float  # mean change of the trainer's log-probs of the probe's own tokens since the last push, in nats


class WeightSync:
    """On every rank; only rank 0 holds an engine."""

    def __init__(
        self,
        policy: Policy,
        engine: RolloutEngine | None,
        model: str,  # the start model's folder
        probe: Prompt,
        sampling: Sampling,  # of the probe's continuations
    ) -> None:
        self.policy, self.engine, self.probe = policy, engine, probe
        most = min(sampling.max_total_tokens, len(probe.token_ids) + PROBE_TOKENS)
        self.logprobs = torch.empty(0)  # of the probe's tokens at the last push
        self.sampling = replace(sampling, samples=1, max_total_tokens=most)
        self.expected = checkpoint_shapes(model)

    def push(self, version: int) -> Parity:
        """A collective. What is too much is for the caller to say.

        When the trainer's own log-probs are not finite nothing is sent, and both numbers are NaN.

        Raises:
            RingError: names or shapes differ from the checkpoint's.
        """
        before, self.logprobs = self.logprobs, self._own_logprobs()
        if not torch.isfinite(self.logprobs).all():
            return Parity(math.nan, math.nan)
        shift = float((self.logprobs - before).abs().mean()) if len(before) else 0.0
        weights = self.policy.hf_weights()
        samples: list[Sample] | None = None
        if self.engine is not None:
            check_complete(weights, self.expected)
            self.engine.update(weights, version)
            completions = self.engine.probe(self.probe, self.sampling)
            samples = [Sample(self.probe, c, 0.0, 0.0, len(c.token_ids)) for c in completions]
        return Parity(self._gap(self.policy.ranks.broadcast(samples)), shift)

    def _own_logprobs(self) -> torch.Tensor:
        """[P - 1] log-probs of the probe's own tokens; every rank computes them, since a forward is a collective."""
        ids, ranks = self.probe.token_ids, self.policy.ranks
        strands = [Strand(ids, (False,) + (True,) * (len(ids) - 1), 0.0)] * ranks.size
        return torch.cat([s.logprobs for s in self.policy.inspect(pack(strands, ranks.size, len(ids))[ranks.rank])])

    def _gap(self, samples: list[Sample]) -> float:
        ranks = self.policy.ranks
        rows = pack([strand(s, 0.0) for s in samples], ranks.size, 1 << 30)[ranks.rank]
        gaps = [
            (s.logprobs - mb.sampler_logprobs[mb.trained].to(s.logprobs.device)).abs().max()
            for mb, s in zip(rows, self.policy.inspect(rows), strict=True)
            if len(s.logprobs)
        ]
        worst = torch.stack(gaps).max() if gaps else torch.zeros((), device=self.policy.device)
        return float(ranks.max(worst))


def checkpoint_shapes(folder: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors in a Hugging Face folder, from the file headers."""
    index = Path(folder) / "model.safetensors.index.json"
    files = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(files):
        with safe_open(str(Path(folder) / file), "pt") as f:
            shapes |= {name: tuple(f.get_slice(name).get_shape()) for name in f.keys()}  # noqa: SIM118
    return shapes


def check_complete(weights: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises RingError unless names and shapes are exactly those of the checkpoint."""
    sent = {name: tuple(t.shape) for name, t in weights.items()}
    missing, extra = sorted(expected.keys() - sent.keys()), sorted(sent.keys() - expected.keys())
    wrong = sorted(n for n in expected.keys() & sent.keys() if sent[n] != expected[n])
    if missing or extra or wrong:
        raise RingError(f"weight sync: missing {missing[:3]}, unexpected {extra[:3]}, wrong shape {wrong[:3]}")
