"""Sampling in the trainer's own process with transformers, for machines without vLLM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from ringrl.errors import DataError
from ringrl.models.loading import load_config, load_model
from ringrl.rollout.engine import Bucket, Piece, Sampling, fresh, grow
from ringrl.types import Completion, Group, Prompt

PADDING_GAP = {"float32": 1e-2, "bfloat16": 0.5}  # nats; more is no rounding
PADDED = (3, 9, 24)  # lengths of the prompts that show what padding does
AFTER = 8  # tokens after them
PAUSE_TOKENS = 16  # tokens between two checks whether to stop early
UNSTARTED = Completion(np.empty(0), np.empty(0), "paused", 0, 0)


class OwnNoise(LogitsProcessor):
    """Samples each row with random numbers of its own: the largest of scores plus Gumbel noise is a sample."""

    def __init__(self, seeds: Sequence[int], sampling: Sampling) -> None:
        self.generators = [torch.Generator().manual_seed(s) for s in seeds]
        self.temperature = TemperatureLogitsWarper(float(sampling.temperature))
        self.top_p = TopPLogitsWarper(sampling.top_p)
        self.scores: list[torch.Tensor] = []  # one [rows, V] tensor per token, before the noise

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.scores.append(self.top_p(ids, self.temperature(ids, scores)))
        noise = torch.stack([torch.empty(scores.shape[-1]).exponential_(generator=g) for g in self.generators])
        return self.scores[-1] - noise.log().to(scores.device)


class LocalEngine:
    """A RolloutEngine with its own copy of the model. Slower than vLLM except on tiny models, and all completions of a
    batch finish together."""

    name = "transformers, in process"

    def __init__(self, model: str, dtype: str, concurrent: int) -> None:
        self.dtype, self.concurrent, self.version = getattr(torch, dtype), concurrent, 0
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        config = load_config(model)
        # the other implementations leave out the cap on attention logits
        capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
        lm = load_model(model, config, self.dtype, "eager" if capped else None)
        ends = lm.generation_config.eos_token_id
        self.ends = [ends] if isinstance(ends, int) else list(ends or [])
        self.lm = self._ready(lm)
        if (gap := self._effect_of_padding()) > PADDING_GAP[dtype]:
            raise DataError(f"{model}: got model_type {config.model_type}, whose log-probs change by {gap:.2g} nats "
                            f"when prompts are padded to one length, as the engine in process does, expected none; use "
                            f"rollout.engine: vllm")  # fmt: skip

    def generate(
        self, groups: Sequence[Group], sampling: Sampling, seed: int, enough: int = 0
    ) -> Iterator[tuple[int, int, Completion]]:
        per_batch = max(self.concurrent // sampling.samples, 1)
        finished = 0
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for first in range(0, len(groups), per_batch):
                batch = list(groups[first : first + per_batch])
                while not all(g.done for g in batch) and not 0 < enough <= finished:
                    grown = self._continue(batch, sampling, PAUSE_TOKENS if enough else 0)
                    done = [g for old, g in zip(batch, grown, strict=True) if g.done and not old.done]
                    finished += sum(len(c.token_ids) for g in done for c in g.completions)
                    batch = grown
                for i, group in enumerate(batch):
                    yield from ((first + i, k, completion) for k, completion in enumerate(group.completions))

    def probe(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return [[c for group in self._continue(fresh(prompts), sampling, 0) for c in group.completions]]

    complete = True
    resend: Callable[[], None] | None = None

    def update(self, buckets: Iterable[Bucket], version: int) -> bool:
        weights = {name: tensor.clone() for bucket, _ in buckets for name, tensor in bucket.items()}
        lm = type(self.lm).from_pretrained(
            None, config=self.lm.config, state_dict=weights, dtype=self.dtype, trust_remote_code=False
        )
        self.lm, self.version = self._ready(lm), version
        return True

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _ready(self, lm: PreTrainedModel) -> PreTrainedModel:
        """Without the folder's own ways to sample: `generate` takes over what it is not told itself, and a penalty or
        a cut would make log-probs those of another distribution."""
        lm.generation_config = GenerationConfig()
        return lm.to(self.device).eval()

    def _effect_of_padding(self) -> float:
        """Largest difference in nats of the likeliest next tokens' log-probs, prompts in one batch against alone."""
        draw = np.random.default_rng(0).integers
        vocabulary = self.lm.get_input_embeddings().num_embeddings
        prompts = [Prompt("", "", draw(vocabulary, size=n), {}) for n in PADDED]
        greedy = Sampling(1, 0.0, max(PADDED) + AFTER)
        groups = [self._continue(fresh(batch), greedy, AFTER) for batch in (prompts, *([p] for p in prompts))]
        together, alone = groups[0], [group for batch in groups[1:] for group in batch]
        gap = 0.0
        for a, b in zip(together, alone, strict=True):
            for t, u, one, other in zip(*(c.completions[0].token_ids for c in (a, b)),
                                        *(c.completions[0].logprobs for c in (a, b)), strict=False):  # fmt: skip
                gap = max(gap, abs(one - other))
                if t != u:
                    break
        return gap

    def _continue(self, groups: Sequence[Group], sampling: Sampling, new_tokens: int) -> list[Group]:
        """Continues everything unfinished in `groups` as one batch, by at most `new_tokens` tokens (0: to the end)."""
        started = [g if g.completions else replace(g, completions=(UNSTARTED,) * sampling.samples) for g in groups]
        paused = [(g, k) for g in started for k, c in enumerate(g.completions) if c.finish == "paused"]
        unfinished = [(g.prompt, g.completions[k]) for g, k in paused]
        seeds = [g.seed + k for g, k in paused if g.seed is not None]
        grown = iter(self._sample(unfinished, sampling, new_tokens, seeds) if unfinished else [])
        return [
            replace(g, completions=tuple(next(grown) if c.finish == "paused" else c for c in g.completions))
            for g in started
        ]

    @torch.no_grad()
    def _sample(
        self, unfinished: Sequence[tuple[Prompt, Completion]], sampling: Sampling, new_tokens: int, seeds: Sequence[int]
    ) -> list[Completion]:
        """[len(unfinished)] continued completions, as one left-padded batch. Without seeds: torch's generator."""
        prefixes = [[*p.token_ids.tolist(), *c.token_ids.tolist()] for p, c in unfinished]
        longest = max(len(p) for p in prefixes)
        room = sampling.max_total_tokens - min(len(p) for p in prefixes)
        pad = self.ends[0] if self.ends else 0
        ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prefixes])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prefixes])
        noise = OwnNoise(seeds, sampling) if seeds and sampling.temperature > 0 else None
        out = self.lm.generate(
            ids.to(self.device),
            attention_mask=mask.to(self.device),
            generation_config=GenerationConfig(
                do_sample=sampling.temperature > 0 and not noise,
                **({} if noise else {"temperature": sampling.temperature or 1.0, "top_p": sampling.top_p, "top_k": 0}),
                max_new_tokens=min(room, new_tokens) if new_tokens else room,
                eos_token_id=self.ends or None,
                pad_token_id=pad,
                return_dict_in_generate=True,
                output_scores=True,
            ),
            logits_processor=LogitsProcessorList([noise] if noise else []),
        )
        step_scores = noise.scores if noise else out.scores
        scores = torch.stack([s.log_softmax(-1) for s in step_scores], 1)  # [len(unfinished), T, V]
        tokens = out.sequences[:, longest:]
        logprobs = scores.gather(-1, tokens[..., None]).squeeze(-1)
        return [
            self._completion(c, t, p, sampling.max_total_tokens - len(prefix))
            for (_, c), prefix, t, p in zip(unfinished, prefixes, tokens.tolist(), logprobs.tolist(), strict=True)
        ]

    def _completion(self, before: Completion, tokens: list[int], logprobs: list[float], room: int) -> Completion:
        end = next((i + 1 for i, t in enumerate(tokens[:room]) if t in self.ends), None)
        n = end if end is not None else min(room, len(tokens))
        finish = "stop" if end is not None else "length" if n == room else "paused"
        return grow(before, Piece(tokens[:n], logprobs[:n], finish, self.version, self.version))
