"""`ringrl sft`: long-CoT distillation [P §2.1, §4.1.1].

    L = -(1/n) Σ log π_θ(y_t)   over the n assistant tokens of the whole batch  (+ router losses)

n is counted before the batch is split, so the gradient depends neither on microbatches nor on ranks.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ringrl.algo.pack import TokenSequence, pack
from ringrl.algo.router import balance_terms, expert_counts, shares, z_terms
from ringrl.algo.schedule import learning_rate
from ringrl.config.commands import SFTConfig
from ringrl.config.load import load
from ringrl.config.sections import Source
from ringrl.data.chat import load_tokenizer, make_sequence
from ringrl.data.source import read_conversations
from ringrl.data.stream import Stream
from ringrl.errors import DataError, Diverged
from ringrl.launch.rank import Context
from ringrl.policy.engine import Policy
from ringrl.policy.forward import TokenStats
from ringrl.policy.meter import Meter
from ringrl.policy.ranks import Ranks
from ringrl.types import MicroBatch

DEADLINE_S = 1800.0  # for a collective


def main(ctx: Context) -> int:
    cfg = load(SFTConfig, ctx.run.path / "config.yaml")
    tokenizer = load_tokenizer(cfg.model, cfg.prompting)
    examples = read_sequences(ctx, cfg, cfg.data, tokenizer)
    held_out = read_sequences(ctx, cfg, cfg.validation, tokenizer)
    ranks = Ranks(DEADLINE_S)
    torch.manual_seed(cfg.seed)
    last = ctx.run.checkpoints[-1] if ctx.run.checkpoints else None
    policy = Policy(cfg.model, tokenizer, cfg.trainer, cfg.optimizer, 1.0, ranks, resume=last)
    stream = Stream(examples, cfg.seed)
    total = round(cfg.epochs * len(examples) / cfg.batch_examples)
    saves = set(range(cfg.save_every, total, cfg.save_every)) if cfg.save_every else epoch_ends(cfg, len(examples))

    step, tokens, stop = 0, 0, False
    if last:
        state = policy.restore(last)
        step, tokens, stream.taken = state["step"], state["tokens"], state["taken"]
    if ranks.main:
        ctx.run.rewind(step)

    while step < total:
        started = time.perf_counter()
        batch = stream.take(cfg.batch_examples)
        n = sum(sum(s.trained) for s in batch)
        rows = layout([replace(s, weight=1 / n) for s in batch], cfg, ranks)
        o = cfg.optimizer
        lr = learning_rate(step, total, o.lr, o.schedule, o.warmup, o.final_lr)
        numbers = train_step(policy, rows, cfg, lr)
        step, tokens = step + 1, tokens + n
        seconds = time.perf_counter() - started
        row = {
            "step": step,
            "epoch": stream.taken / len(examples),
            "tokens_total": tokens,
            **numbers,
            "lr": lr,
            "tokens_per_s": n / seconds,
            "time_step_s": seconds,
        }
        if not all(torch.isfinite(torch.tensor([numbers["loss"], numbers["grad_norm"]]))):
            raise Diverged(f"step {step}: loss {numbers['loss']}, grad_norm {numbers['grad_norm']}")
        stop = ranks.broadcast(ctx.interrupted)
        if ranks.main:
            ctx.run.append("metrics", row)
            ctx.progress.step(step, total, {k: row[k] for k in ("epoch", "loss", "grad_norm", "lr", "tokens_per_s")})
        if step in saves or step == total or stop:
            if step in saves or step == total:
                measured = validate(policy, held_out, cfg, ranks)
                if ranks.main:
                    ctx.run.append("evals", {k: row[k] for k in ("step", "epoch", "tokens_total")} | measured)
            state = {"step": step, "tokens": tokens, "taken": stream.taken}
            policy.save(ctx.run.checkpoint(step), state, then=ctx.run.tidy)
        policy.writer.check()
        if stop:
            break
    policy.settle()
    ranks.close()
    return 130 if stop else 0


def train_step(policy: Policy, rows: list[MicroBatch], cfg: SFTConfig, lr: float) -> dict[str, float]:
    """One optimizer step. Returns loss, router losses and gradient norm over the whole batch."""
    meter = Meter()
    share = expert_share(policy, rows) if cfg.balance else torch.zeros(1, 1)

    def terms(mb: MicroBatch, stats: TokenStats, _: int) -> torch.Tensor:
        w = mb.weights[mb.trained]
        loss, zero = -stats.logprobs, torch.zeros_like(stats.logprobs)
        balance = balance_terms(stats.router_logits, share, policy.module.routers.scoring) if cfg.balance else zero
        z = z_terms(stats.router_logits) if cfg.z else zero
        meter.add(loss=(w * loss).sum(), balance_loss=(w * balance).sum(), z_loss=(w * z).sum())
        return loss + cfg.balance * balance + cfg.z * z

    grad_norm = policy.update(rows, terms, lr)
    return {**meter.total(policy.ranks), "grad_norm": grad_norm}


def expert_share(policy: Policy, rows: list[MicroBatch]) -> torch.Tensor:
    """Share of the trained tokens' routings that goes to each expert, over all ranks: [layers, E]."""
    stats = policy.inspect(rows)
    counts = torch.stack([expert_counts(s.chosen, s.router_logits.shape[-1]) for s in stats])
    return shares(policy.ranks.sum(counts.sum(0)))


def validate(policy: Policy, examples: list[TokenSequence], cfg: SFTConfig, ranks: Ranks) -> dict[str, float]:
    """Mean loss and mean entropy per assistant token of held-out examples, in nats."""
    meter = Meter()
    for stats in policy.inspect(layout(examples, cfg, ranks)):
        n = torch.tensor(float(len(stats.logprobs)), device=stats.logprobs.device)
        meter.add(val_loss=-stats.logprobs.sum(), val_entropy=stats.entropy.sum(), n=n)
    total = meter.total(ranks)
    return {k: total[k] / total["n"] for k in ("val_loss", "val_entropy")}


def layout(sequences: list[TokenSequence], cfg: SFTConfig, ranks: Ranks) -> list[MicroBatch]:
    return pack(sequences, ranks.size, cfg.trainer.microbatch_tokens, cfg.trainer.packing)[ranks.rank]


def epoch_ends(cfg: SFTConfig, examples: int) -> set[int]:
    return {round(e * examples / cfg.batch_examples) for e in range(1, cfg.epochs + 1)}


def read_sequences(ctx: Context, cfg: SFTConfig, source: Source, tokenizer: Any) -> list[TokenSequence]:
    """Conversations as sequences; those longer than `max_tokens` are dropped and counted."""
    sequences = [make_sequence(m, tokenizer, cfg.prompting, where) for where, m in read_conversations(source)]
    fitting = [s for s in sequences if len(s.token_ids) <= cfg.max_tokens and any(s.trained)]
    if not fitting:
        raise DataError(f"{source.files[0]}: no example of at most max_tokens={cfg.max_tokens} tokens")
    if len(fitting) < len(sequences):
        files = ", ".join(Path(f).name for f in source.files)
        ctx.progress.note(f"{files}: {len(sequences) - len(fitting)} of {len(sequences)} examples are longer than "
                          f"max_tokens={cfg.max_tokens} and left out")  # fmt: skip
    return fitting
