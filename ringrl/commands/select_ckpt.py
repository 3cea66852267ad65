"""`ringrl select-ckpt`: which SFT checkpoint to start RL from [P §4.3].

For every checkpoint, sample responses to the probe prompts at temperature 1.0 and measure

    H = mean over response tokens of -Σ_v π(v) log π(v)   in nats, exact, in a trainer forward

Rule: among the checkpoints with H inside the band, the one with the best avg@k; if none is inside, the nearest to the
band, with a warning. The paper's band, 0.3 to 0.5, is a property of its models; its best start is not the checkpoint
with the best score, which `rule: best-score` would choose.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from ringrl.config.commands import SelectConfig
from ringrl.config.load import load
from ringrl.data.chat import load_tokenizer, make_prompts
from ringrl.data.source import read_problems
from ringrl.errors import RingError
from ringrl.evals.metrics import summarize, too_many_errors
from ringrl.launch.rank import Context
from ringrl.policy.check import check_forward
from ringrl.policy.forward import PolicyModule, load_lm, to_device
from ringrl.policy.sync import expected_kinds, logprob_gaps, response_rows, send_weights
from ringrl.rewards import VerifierPool
from ringrl.rollout.engine import Sampling
from ringrl.rollout.score import sample_all
from ringrl.rollout.transfer import Shared
from ringrl.run import Run, find_checkpoints
from ringrl.types import ScoredGroup

Row = dict[str, Any]


def main(ctx: Context) -> int:
    cfg = load(SelectConfig, ctx.run.path / "config.yaml")
    folders = find_checkpoints(cfg.model)
    tokenizer = load_tokenizer(str(folders[0]), cfg.prompting)
    prompts = make_prompts(
        read_problems(cfg.probe, cfg.known_domains), tokenizer, cfg.prompting, cfg.max_total_tokens, cfg.known_domains
    )
    engine = ctx.rollout_engine(str(folders[0]), cfg.rollout)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shared = Shared(device, Path(ctx.spec["meeting"]) / "bucket", cfg.rollout.bucket_mib << 20)
    rows = []
    verify = cfg.verify
    with VerifierPool(verify.workers, verify.deadline_s, cfg.known_domains, **verify.programs) as verifier:
        for i, folder in enumerate(folders):
            if ctx.interrupted:
                return 130
            module = PolicyModule(load_lm(str(folder), cfg.trainer.dtype, cfg.trainer.attention), 1.0).eval()
            check_forward(module, cfg.trainer, str(folder))
            module.to(device)
            kinds = expected_kinds(str(folder), module.lm)
            engine.resend = functools.partial(send_weights, engine, module.lm, i + 1, kinds, cfg.rollout, shared)
            engine.resend()
            sampling = Sampling(cfg.samples, 1.0, cfg.max_total_tokens)
            name = folder.name

            def show(done: int, name: str = name) -> None:
                ctx.progress.phase(f"sample {name}", done, len(prompts))

            scored = sample_all(engine, verifier, tokenizer, prompts, sampling, cfg.seed, show)
            if trouble := too_many_errors(scored, cfg.verify.max_error_share):
                raise RingError(f"{folder}: {trouble}")
            entropy, gap = measure(module, scored, cfg)
            if not gap <= (limit := cfg.rollout.parity(cfg.trainer.dtype)):
                raise RingError(f"{folder}: the engine's log-probs differ from the trainer's by {gap:.3g} nats, "
                                f"expected at most {limit:g} (rollout.parity_limit)")  # fmt: skip
            rows.append(make_row(folder, entropy, summarize(scored), cfg.band))
            shown = {"checkpoint": name, "entropy": entropy, f"avg@{cfg.samples}": rows[-1]["score"]}
            ctx.progress.step(i + 1, len(folders), shown)
            engine.resend = None  # which holds the model, and its GPU has no room for two
            del module
    engine.close()
    chosen, reason, inside = choose(rows, cfg.band, cfg.rule)
    best = max(rows, key=lambda r: r["score"])
    show_table(ctx, rows, chosen, cfg)
    warning = "" if inside or cfg.rule == "best-score" else "warning: "
    ctx.progress.note(f"{warning}{chosen['name']}: {reason}")
    choice = {"chosen": chosen["name"], "chosen_path": chosen["path"], "reason": reason, "by_score": best["name"]}
    ctx.run.write("selection.json", {"band": list(cfg.band), "rule": cfg.rule, **choice, "rows": rows})
    return 0


@torch.no_grad()
def measure(module: PolicyModule, scored: list[ScoredGroup], cfg: SelectConfig) -> tuple[float, float]:
    """(mean entropy, mean log-prob gap to the engine), both in nats per response token.

    The mean and not the maximum: near-ties of a router may resolve differently in the other engine and move single
    tokens, while weights that did not arrive move all of them.
    """
    responses = [(g.group.prompt, c) for g in scored for c in g.group.completions]
    total, n, gap, packing = 0.0, 0, 0.0, cfg.trainer.packing and module.packs
    for row in response_rows(responses, 1, cfg.trainer.microbatch_tokens, packing)[0]:
        mb = to_device(row, module.lm.device)
        stats = module(mb)
        total, n = total + float(stats.entropy.double().sum()), n + len(stats.entropy)
        gap += float(logprob_gaps(mb, stats).double().sum())
    return total / max(n, 1), gap / max(n, 1)


def make_row(folder: Path, entropy: float, numbers: dict[str, Any], band: tuple[float, float]) -> Row:
    """One row of the table. Step, epoch and tokens are known only for checkpoints of an SFT run."""
    metrics: Row = {}
    if folder.parent.name == "checkpoints":
        step = int(folder.name.rpartition("_")[2])
        metrics = next((r for r in Run(folder.parent.parent).rows("metrics") if r["step"] == step), {})
    return {
        "name": folder.name,
        "path": str(folder),
        "step": metrics.get("step"),
        "epoch": metrics.get("epoch"),
        "sft_tokens": metrics.get("tokens_total"),
        "entropy": entropy,
        "score": numbers["avg"],
        "score_se": numbers["se"],
        "pass_k": numbers["pass_k"],
        "k": numbers["k"],
        "length_mean": numbers["length_mean"],
        "truncated_frac": numbers["truncated_frac"],
        "errors": numbers["errors"],
        "in_band": band[0] <= entropy <= band[1],
    }


def show_table(ctx: Context, rows: list[Row], chosen: Row, cfg: SelectConfig) -> None:
    shown = [{
        "checkpoint": r["name"] + (" *" if r is chosen else ""),
        "SFT tokens": f"{r['sft_tokens']:,}" if r["sft_tokens"] else "",
        "entropy": f"{r['entropy']:.3f}",
        "in band": "yes" if r["in_band"] else "no",
        f"avg@{r['k']} %": f"{100 * r['score']:.1f} ± {100 * r['score_se']:.1f}",
        f"pass@{r['k']} %": f"{100 * r['pass_k']:.1f}",
        "length": f"{r['length_mean']:.1f}",
        "truncated %": f"{100 * r['truncated_frac']:.1f}",
    } for r in rows]  # fmt: skip
    ctx.progress.table(f"checkpoints; entropy band {cfg.band[0]:g} to {cfg.band[1]:g} nats, * starts RL", shown)


def choose(rows: list[Row], band: tuple[float, float], rule: str) -> tuple[Row, str, bool]:
    """(chosen row, reason, whether any row is inside the band)."""
    inside = [r for r in rows if r["in_band"]]
    if rule == "best-score":
        row = max(rows, key=lambda r: r["score"])
        return row, f"best score, {row['score']:.3f}; entropy {row['entropy']:.3f} not considered", bool(inside)
    if inside:
        row = max(inside, key=lambda r: r["score"])
        return row, (f"best score, {row['score']:.3f}, of {len(inside)} with entropy in "
                     f"[{band[0]:g}, {band[1]:g}]; its entropy is {row['entropy']:.3f}"), True  # fmt: skip

    def distance(r: Row) -> float:
        return max(band[0] - r["entropy"], r["entropy"] - band[1])

    row = min(rows, key=distance)
    return row, (f"no checkpoint has entropy in [{band[0]:g}, {band[1]:g}]; {row['name']} is nearest "
                 f"with {row['entropy']:.3f}"), False  # fmt: skip
