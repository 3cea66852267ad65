"""Sampling in the trainer's own process with transformers, for machines without vLLM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from ringrl.rollout.engine import Sampling
from ringrl.types import Completion, Group, Prompt


class LocalEngine:
    """A RolloutEngine with a copy of the model. Slower than vLLM on all but tiny models."""

    name = "transformers, in process"

    def __init__(self, model: str, dtype: str, concurrent: int) -> None:
        self.path, self.dtype, self.concurrent, self.version = model, getattr(torch, dtype), concurrent, 0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.lm = self._load(None)
        ends = self.lm.generation_config.eos_token_id
        self.ends = [ends] if isinstance(ends, int) else list(ends or [])

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling, seed: int) -> Iterator[tuple[int, Group]]:
        per_batch = max(self.concurrent // sampling.samples, 1)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for first in range(0, len(prompts), per_batch):
                batch = prompts[first : first + per_batch]
                for i, completions in enumerate(self._sample(batch, sampling)):
                    yield first + i, Group(batch[i], tuple(completions))

    def probe(self, prompt: Prompt, sampling: Sampling) -> list[Completion]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return list(self._sample([prompt], sampling)[0])

    def update(self, weights: Mapping[str, torch.Tensor], version: int) -> None:
        self.lm = self._load({k: v.clone() for k, v in weights.items()})
        self.version = version

    def close(self) -> None:
        pass

    def _load(self, weights: dict[str, torch.Tensor] | None) -> PreTrainedModel:
        """From the folder, or the folder's configuration with `weights` under checkpoint names."""
        if weights is None:
            lm = AutoModelForCausalLM.from_pretrained(self.path, dtype=self.dtype)
        else:
            lm = type(self.lm).from_pretrained(None, config=self.lm.config, state_dict=weights, dtype=self.dtype)
            lm.generation_config = self.lm.generation_config
        return lm.to(self.device).eval()

    @torch.no_grad()
    def _sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """[len(prompts)][K] completions from one left-padded batch."""
        longest = max(len(p.token_ids) for p in prompts)
        pad = self.ends[0] if self.ends else 0
        ids = torch.tensor([[pad] * (longest - len(p.token_ids)) + list(p.token_ids) for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p.token_ids)) + [1] * len(p.token_ids) for p in prompts])
        out = self.lm.generate(
            ids.to(self.device),
            attention_mask=mask.to(self.device),
            generation_config=GenerationConfig(
                do_sample=sampling.temperature > 0,
                temperature=sampling.temperature or 1.0,
                top_p=sampling.top_p,
                top_k=0,
                num_return_sequences=sampling.samples,
                max_new_tokens=sampling.max_total_tokens - min(len(p.token_ids) for p in prompts),
                eos_token_id=self.ends or None,
                pad_token_id=pad,
                return_dict_in_generate=True,
                output_scores=True,
            ),
        )
        scores = torch.stack([s.log_softmax(-1) for s in out.scores], 1)  # [B K, T, V], processed
        tokens = out.sequences[:, longest:]
        logprobs = scores.gather(-1, tokens[..., None]).squeeze(-1)
        rows = [
            self._completion(prompts[i // sampling.samples], t, p, sampling.max_total_tokens)
            for i, (t, p) in enumerate(zip(tokens.tolist(), logprobs.tolist(), strict=True))
        ]
        return [rows[i : i + sampling.samples] for i in range(0, len(rows), sampling.samples)]

    def _completion(self, prompt: Prompt, tokens: list[int], logprobs: list[float], total: int) -> Completion:
        room = total - len(prompt.token_ids)
        end = next((i + 1 for i, t in enumerate(tokens[:room]) if t in self.ends), None)
        n = end if end is not None else min(room, len(tokens))
        return Completion(tuple(tokens[:n]), tuple(logprobs[:n]), "length" if end is None else "stop", self.version)
