"""`ringrl sft`: long-CoT distillation [P §2.1, §4.1.1].

    L = -(1/n) Σ log π_θ(y_t)   over the n assistant tokens of the whole batch  (+ router losses)

n is counted before the batch is split, so the gradient depends neither on microbatches nor on ranks.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import torch

from ringrl.algo.pack import TokenSequence, lay_out
from ringrl.algo.router import balance_terms, expert_counts, shares, z_terms
from ringrl.algo.schedule import learning_rate
from ringrl.config.commands import SFTConfig
from ringrl.config.load import load
from ringrl.config.sections import Source
from ringrl.data.chat import load_tokenizer
from ringrl.data.stream import Stream
from ringrl.data.token_cache import Recipe, TokenCache, open_cache
from ringrl.errors import DataError, Diverged
from ringrl.launch.rank import Context
from ringrl.models.families import check_positions
from ringrl.plan.shape import pair_cost
from ringrl.policy.engine import Policy
from ringrl.policy.forward import TokenStats
from ringrl.policy.meter import Meter
from ringrl.policy.ranks import Ranks
from ringrl.types import MicroBatch

DEADLINE_S = 1800.0  # limit of one collective operation
Numbers = dict[str, float]


def main(ctx: Context) -> int:
    return SFTLoop(ctx, load(SFTConfig, ctx.run.path / "config.yaml")).run()


class SFTLoop:
    """The training loop on one rank. Rank 0 reads the examples off the disk, packs them and scatters the rows."""

    def __init__(self, ctx: Context, cfg: SFTConfig) -> None:
        self.ctx, self.cfg, self.stopped = ctx, cfg, False
        tokenizer = load_tokenizer(cfg.model, cfg.prompting)
        self.ranks = Ranks(DEADLINE_S, ctx.spec["meeting"])

        def read() -> tuple[TokenCache, list[TokenSequence]]:
            examples = read_sequences(ctx, cfg, cfg.data)
            if len(examples) < cfg.batch_examples:
                raise DataError(f"batch_examples: got {cfg.batch_examples}, expected at most {len(examples)}, the "
                                f"examples in {', '.join(cfg.data.files)}")  # fmt: skip
            return examples, read_sequences(ctx, cfg, cfg.validation)[:] if cfg.validation else []

        examples, self.held_out = self.ranks.wait_for_main(read) or ([], [])
        self.stream = Stream(examples, cfg.seed) if self.ranks.main else None
        self.examples: int = self.ranks.broadcast(len(examples))
        torch.manual_seed(cfg.seed)
        last = self.ranks.newest(ctx.run.checkpoints)
        self.policy = Policy(cfg.model, tokenizer, cfg.trainer, cfg.optimizer, 1.0, self.ranks, resume=last)
        self.done, self.tokens = 0, 0  # optimizer steps completed, and tokens trained on
        self.share = torch.zeros(0, 1)  # [layers, E] share of routings in the last of them; no layers before the first
        if last:
            state = self.policy.restore(last)
            self.done, self.tokens = state["step"], state["tokens"]
            if share := state.get("expert_share"):
                self.share = torch.tensor(share)
        if self.stream:
            self.stream.taken = self.done * cfg.batch_examples
            ctx.run.rewind(self.done)
        self.total = round(cfg.epochs * self.examples / cfg.batch_examples)
        if self.total < self.done:
            raise DataError(f"epochs: got {cfg.epochs}, which are {self.total} steps, expected at least the "
                            f"{self.done} that are done")  # fmt: skip
        every = cfg.save_every
        self.saves = set(range(every, self.total, every)) if every else epoch_ends(cfg, self.examples)

    def run(self) -> int:
        """Train from the current step to the end. Returns the exit code."""
        while self.done < self.total and not self.stopped:
            self.step()
        self.policy.settle()
        self.ranks.close()
        return 130 if self.stopped else 0

    def step(self) -> None:
        """One optimizer step: examples -> rows -> update.

        Raises:
            Diverged: loss or gradient norm is not finite.
        """
        cfg, started = self.cfg, time.perf_counter()
        batch = self.stream.take(cfg.batch_examples) if self.stream else []
        n = sum(int(s.trained.sum()) for s in batch)
        rows = self.scatter([replace(s, weight=1 / n) for s in batch])
        o = cfg.optimizer
        lr = learning_rate(self.done, self.total, o.lr, o.schedule, o.warmup, o.final_lr)
        numbers, self.share = train_step(self.policy, rows, cfg, lr, self.share)
        self.done, self.tokens = self.done + 1, self.tokens + n
        seconds = time.perf_counter() - started
        if not math.isfinite(numbers["loss"] + numbers["grad_norm"]):
            raise Diverged(f"step {self.done}: loss {numbers['loss']}, grad_norm {numbers['grad_norm']}")
        where = {
            "step": self.done,
            "epoch": self.done * cfg.batch_examples / self.examples,
            "tokens_total": self.tokens,
        }
        row = {**where, **numbers, "lr": lr, "tokens_per_s": n / seconds, "time_step_s": seconds}
        self.conclude(where, row)

    def conclude(self, where: Numbers, row: Numbers) -> None:
        """After the update: write metrics and, when due, validate and save a checkpoint."""
        run, step = self.ctx.run, self.done
        self.stopped = self.ranks.broadcast(self.ctx.interrupted)
        if self.ranks.main:
            run.append("metrics", row)
            shown = {k: row[k] for k in ("epoch", "loss", "grad_norm", "lr", "tokens_per_s")}
            self.ctx.progress.step(step, self.total, shown)
        due = step in self.saves or step == self.total

        def then() -> None:
            run.tidy(self.cfg.keep_resumable)
            run.tell("saved", run.checkpoint(step))

        if due and self.cfg.validation:
            measured = validate(self.policy, self.scatter(self.held_out))
            if self.ranks.main:
                run.append("evals", where | measured)
        if due or self.stopped:
            state = {"step": step, "tokens": self.tokens, "expert_share": self.share.tolist()}
            if self.ranks.main:
                run.sync()
            self.policy.save(run.checkpoint(step), state, then=then)
        self.policy.writer.check()

    def scatter(self, sequences: list[TokenSequence]) -> list[MicroBatch]:
        """This rank's share of the sequences that rank 0 packs."""
        trainer = self.cfg.trainer
        attention = pair_cost(self.cfg.model)
        shares = lay_out(sequences, self.ranks.size, trainer.microbatch_tokens, self.policy.packing, attention)
        [rows] = self.ranks.scatter_rows([[rows] for rows in shares])
        return rows


def train_step(
    policy: Policy, rows: list[MicroBatch], cfg: SFTConfig, lr: float, previous: torch.Tensor
) -> tuple[dict[str, float], torch.Tensor]:
    """One optimizer step.

    Args:
        previous: [layers, E] share of routings in the step before; no layers before the first.

    Returns:
        Loss, router losses and gradient norm over the whole batch; and the share of routings in it, if it is wanted.
    """
    meter = Meter()
    counted: list[torch.Tensor] = []
    share = previous.to(policy.device)
    if cfg.balance and (cfg.balance_over == "batch" or not len(previous)):
        share = share_of(policy, [routed(stats) for stats in policy.inspect(rows)])

    def terms(mb: MicroBatch, stats: TokenStats, _: int) -> torch.Tensor:
        w = mb.weights[mb.trained]
        counted.append(routed(stats))
        loss, zero = -stats.logprobs, torch.zeros_like(stats.logprobs)
        balance = balance_terms(stats.router_logits, share, policy.module.routers.scoring) if cfg.balance else zero
        z = z_terms(stats.router_logits) if cfg.z else zero
        meter.add(loss=(w * loss).sum(), balance_loss=(w * balance).sum(), z_loss=(w * z).sum())
        return loss + cfg.balance * balance + cfg.z * z

    grad_norm = policy.update(rows, terms, lr)
    return {**meter.total(policy.ranks), "grad_norm": grad_norm}, share_of(policy, counted) if cfg.balance else previous


def routed(stats: TokenStats) -> torch.Tensor:
    """How often each expert was chosen for a trained token: [layers, E]."""
    return expert_counts(stats.chosen, stats.router_logits.shape[-1])


def share_of(policy: Policy, counted: list[torch.Tensor]) -> torch.Tensor:
    """Shares of what was routed, over all rows and ranks: [layers, E]."""
    return shares(policy.ranks.sum(torch.stack(counted).sum(0)))


def validate(policy: Policy, rows: list[MicroBatch]) -> dict[str, float]:
    """Mean loss and mean entropy per assistant token of held-out examples, in nats."""
    meter = Meter()
    for stats in policy.inspect(rows):
        n = torch.tensor(float(len(stats.logprobs)), device=stats.logprobs.device)
        meter.add(val_loss=-stats.logprobs.sum(), val_entropy=stats.entropy.sum(), n=n)
    total = meter.total(policy.ranks)
    return {k: total[k] / total["n"] for k in ("val_loss", "val_entropy")}


def epoch_ends(cfg: SFTConfig, examples: int) -> set[int]:
    return {round(e * examples / cfg.batch_examples) for e in range(1, cfg.epochs + 1)}


def read_sequences(ctx: Context, cfg: SFTConfig, source: Source) -> TokenCache:
    """Conversations as sequences on disk; those over `max_tokens` are dropped, with a note of their number."""
    files = ", ".join(Path(f).name for f in source.files)

    def report(done: int) -> None:
        ctx.progress.phase(f"tokens of {files}", done, source.limit)

    recipe = Recipe(cfg.model, cfg.prompting, cfg.max_tokens)
    sequences = open_cache(source, recipe, ctx.run.path, report, ctx.progress.note)
    counts = sequences.counts
    if not sequences:
        raise DataError(f"{files}: no example of at most max_tokens={cfg.max_tokens} tokens")
    check_positions(cfg.model, sequences.longest, "max_tokens")
    found = counts.sequences + counts.long
    if counts.untrained:
        ctx.progress.note(f"{files}: {counts.untrained} of {counts.conversations} conversations have no turn to train "
                          f"on")  # fmt: skip
    if counts.split:
        ctx.progress.note(f"{files}: {counts.split} of {counts.conversations} conversations are trained on in parts, "
                          f"since the chat template rewrites earlier turns: {found} examples")  # fmt: skip
    if counts.long:
        ctx.progress.note(f"{files}: {counts.long} of {found} examples are longer than max_tokens={cfg.max_tokens} and "
                          f"left out")  # fmt: skip
    return sequences
