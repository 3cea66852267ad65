"""Reads a run's metrics and says when it goes wrong. Limits are in `ringrl.config.loss.Watchdog`.

not finite    the loss, the gradient, or the trainer's own log-probs after the update      collapse
shift         how far one update moved the log-probs of a fixed prompt                     warning, collapse
gradient      its norm, over the larger of the window's median and the clipping norm      warning, collapse
entropy       over or under the window's median, of steps that trained on something       warning, collapse
reward        none at all for `patience` batches; or fallen far from its best              warning, collapse
parity        sampler and trainer disagree on one fixed prompt after a weight sync         collapse
mismatch      their k3 over the trained tokens                                             warning
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ringrl.config.loss import Watchdog
from ringrl.lines import write_atomic
from ringrl.rl.bundle import Batch
from ringrl.rl.kept import plain
from ringrl.rl.record import Row, is_finite
from ringrl.run import Run

HISTORY = ("step", "stage", "version", "tokens_trained", "grad_norm", "entropy", "score_mean", "reward_mean")


@dataclass(frozen=True, slots=True)
class Alarm:
    kind: str
    collapse: bool
    text: str


def remembered(rows: Sequence[Row]) -> list[Row]:
    """What `judge` needs of rows that are history, so that a long run keeps little of them."""
    return [{key: row[key] for key in HISTORY if key in row} for row in rows]


def judge(history: Sequence[Row], row: Row, limits: Watchdog, clip_norm: float, parity_limit: float) -> list[Alarm]:
    """What is wrong with `row`, the gravest first; `history` are the rows of the same stage before it."""
    if not is_finite(row):
        bad = ", ".join(f"{k} {v:g}" for k, v in row.items() if isinstance(v, float) and not is_finite({k: v}))
        return [Alarm("not finite", True, bad)]
    recent = [r for r in history if r["tokens_trained"]][-limits.window :]
    alarms = _shift(row["shift"], limits.shift) + _rewards([*history, row], limits)
    if row["tokens_trained"]:
        alarms += _entropy(row["entropy"], recent, limits.entropy)
        alarms += _gradient(row["grad_norm"], recent, limits.grad_norm, clip_norm)
    if not row["parity"] <= parity_limit:
        text = (f"after the weight sync the engine's log-probs differ from the trainer's by {row['parity']:.3g} nats, "
                f"expected at most {parity_limit:g} (rollout.parity_limit): the weights did not arrive whole, or the "
                f"policy is out of the range of its number format")  # fmt: skip
        alarms.append(Alarm("parity", True, text))
    if row["mismatch_kl"] > limits.mismatch:
        text = f"mismatch_kl {row['mismatch_kl']:.3g} nats, healthy below {limits.mismatch:g}; see loss.correction"
        alarms.append(Alarm("mismatch", False, text))
    return sorted(alarms, key=lambda a: not a.collapse)


def save(run: Run, rows: list[Row], alarms: list[Alarm], batch: Batch) -> Path:
    """The offending batch, and why: watchdog/step_000012.{pt,json}. Returns the first, which torch.load reads as
    dictionaries, lists and tensors."""
    name = f"step_{rows[-1]['step']:06d}"
    folder = run.path / "watchdog"
    folder.mkdir(exist_ok=True)
    whole = io.BytesIO()
    scored, shares = batch.rollout.scored, batch.shares
    torch.save(plain({"rows": rows, "scored": scored, "chosen": batch.chosen, "shares": shares}, torch.tensor), whole)
    write_atomic(folder / f"{name}.pt", whole.getvalue())
    reasons = [{"kind": a.kind, "collapse": a.collapse, "text": a.text} for a in alarms]
    run.write(f"watchdog/{name}.json", {"alarms": reasons, "rows": [{k: _json(v) for k, v in r.items()} for r in rows]})
    return folder / f"{name}.pt"


def _gradient(norm: float, recent: Sequence[Row], limit: float, clip_norm: float) -> list[Alarm]:
    usual = statistics.median(r["grad_norm"] for r in recent) if recent else 0.0
    times = norm / max(usual, clip_norm)
    if times <= limit / 10:
        return []
    return [Alarm("gradient", times > limit, f"grad_norm {norm:.3g} is {times:.0f} times what it was")]


def _shift(nats: float, limit: float) -> list[Alarm]:
    if nats <= limit / 4:
        return []
    text = f"the update moved the log-probs of a fixed prompt by {nats:.3g} nats a token, expected at most {limit:g}"
    return [Alarm("shift", nats > limit, text)]


def _entropy(value: float, recent: Sequence[Row], limit: float) -> list[Alarm]:
    if not recent:
        return []
    usual = statistics.median(r["entropy"] for r in recent)
    times = max(value, usual) / max(min(value, usual), 1e-12)
    if times <= limit / 3:
        return []
    text = f"entropy {value:.3g} nats, a median of {usual:.3g} in the last {len(recent)} steps"
    return [Alarm("entropy", times > limit, text)]


def _rewards(rows: Sequence[Row], limits: Watchdog) -> list[Alarm]:
    # one per rollout batch; a run that began before there were scores goes by its rewards
    rewards = list({r["version"]: r["score_mean" if "score_mean" in r else "reward_mean"] for r in rows}.values())
    n = limits.patience
    last = rewards[-n:]
    if len(last) < n:
        return []
    if not any(last):
        return [Alarm("reward", True, f"no response got a reward in the last {n} rollout batches: look at "
                                      f"rollouts/, the answers in the data, and the verifier")]  # fmt: skip
    best = max(statistics.fmean(rewards[i : i + n]) for i in range(len(rewards) - n + 1))
    now = statistics.fmean(last)
    if now >= 2 * limits.reward * best:
        return []
    return [Alarm("reward", now < limits.reward * best, f"reward {now:.3g} in the last {n} rollout batches, {best:.3g} "
                                                        f"at its best")]  # fmt: skip


def _json(value: Any) -> Any:
    return value if not isinstance(value, float) or is_finite({"": value}) else str(value)
