"""A C3PO step in NumPy and float64, from the numbers that a run leaves on disk: nothing of ringrl or torch is used.

`Var` is an array that remembers how it was made; `backward` walks back from a scalar. The model is Qwen3-MoE as its
folder describes it. All responses of an update stand one after the other in a single row, every one seeing itself only.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file

Array = Any  # float64 unless it is an index
Weights = dict[str, Array]
births = itertools.count()


@dataclass(eq=False)
class Var:
    value: Array
    made_of: Sequence[tuple[Var, Callable[[Array], Array]]] = ()  # (operand, what its share of a gradient is)
    grad: Array = 0.0
    birth: int = field(default_factory=births.__next__)

    def __add__(self, other: Var | Array | float) -> Var:
        other = var(other)
        return Var(self.value + other.value, ((self, lambda g: g), (other, lambda g: g)))

    def __mul__(self, other: Var | Array | float) -> Var:
        other = var(other)
        return Var(self.value * other.value, ((self, lambda g: g * other.value), (other, lambda g: g * self.value)))

    def __matmul__(self, other: Var) -> Var:
        def flip(a: Array) -> Array:
            return np.swapaxes(a, -1, -2)

        ways = ((self, lambda g: g @ flip(other.value)), (other, lambda g: flip(self.value) @ g))
        return Var(self.value @ other.value, ways)

    def __neg__(self) -> Var:
        return self * -1.0

    def __sub__(self, other: Var | Array | float) -> Var:
        return self + -var(other)

    def __pow__(self, n: float) -> Var:
        return Var(self.value**n, ((self, lambda g: g * n * self.value ** (n - 1)),))

    def exp(self) -> Var:
        e = np.exp(self.value)
        return Var(e, ((self, lambda g: g * e),))

    def log(self) -> Var:
        return Var(np.log(self.value), ((self, lambda g: g / self.value),))

    def sum(self, axis: int = -1) -> Var:
        """Keeps the axis, with one element."""
        return Var(self.value.sum(axis, keepdims=True), ((self, lambda g: np.broadcast_to(g, self.value.shape)),))

    def view(self, *shape: int) -> Var:
        return Var(self.value.reshape(shape), ((self, lambda g: g.reshape(self.value.shape)),))

    def move(self, *axes: int) -> Var:
        return Var(self.value.transpose(axes), ((self, lambda g: g.transpose(np.argsort(axes))),))

    @property
    def T(self) -> Var:
        return self.move(1, 0)

    def take(self, index: Any) -> Var:
        def spread(g: Array) -> Array:
            whole = np.zeros_like(self.value)
            np.add.at(whole, index, g)
            return whole

        return Var(self.value[index], ((self, spread),))


def var(x: Var | Array | float) -> Var:
    return x if isinstance(x, Var) else Var(np.asarray(x, np.float64))


def backward(end: Var) -> None:
    reached, todo = {id(end): end}, [end]
    while todo:
        for parent, _ in todo.pop().made_of:
            if id(parent) not in reached:
                reached[id(parent)] = parent
                todo.append(parent)
    end.grad = np.ones_like(end.value)
    for node in sorted(reached.values(), key=lambda v: -v.birth):
        for parent, share in node.made_of:
            g = share(node.grad)
            g = g.sum(tuple(range(g.ndim - parent.value.ndim)))  # what broadcasting repeated
            once = tuple(i for i, n in enumerate(parent.value.shape) if n == 1 != g.shape[i])
            parent.grad = parent.grad + g.sum(once, keepdims=True)


def log_softmax(x: Var) -> Var:
    x = x - x.value.max(-1, keepdims=True)
    return x - x.exp().sum().log()


def rms_norm(x: Var, weight: Var, eps: float) -> Var:
    return x * ((x * x).sum() * (1 / x.value.shape[-1]) + eps) ** -0.5 * weight


@dataclass
class Seen:
    """What the n trained tokens of an update are to a model."""

    logprobs: Var  # [n]
    entropy: Var  # [n]
    routers: list[Var]  # [layers] of [n, E]
    chosen: list[Array]  # [layers] of [n, top_k]


def forward(w: dict[str, Var], config: dict[str, Any], rows: list[tuple[Array, int]], temperature: float) -> Seen:
    """rows: (prompt and response, number of trained tokens at its end)."""
    heads, kv, width, eps = (config[k] for k in ("num_attention_heads", "num_key_value_heads", "head_dim",
                                                 "rms_norm_eps"))  # fmt: skip
    experts, top_k = config.get("num_experts") or config["num_local_experts"], config["num_experts_per_tok"]
    lengths = [len(ids) - 1 for ids, _ in rows]
    inputs, targets = (np.concatenate([ids[s] for ids, _ in rows]) for s in (slice(None, -1), slice(1, None)))
    at = np.concatenate([np.arange(n) for n in lengths])
    row: Array = np.repeat(np.arange(len(rows)), lengths)
    unseen = (row[:, None] != row) | (at[:, None] < at)
    trained = np.concatenate([np.arange(n) >= n - last for n, (_, last) in zip(lengths, rows, strict=True)])
    angles = at[:, None] * config["rope_parameters"]["rope_theta"] ** (-np.arange(0, width, 2) / width)
    cos, sin = (np.concatenate([f(angles)] * 2, -1) for f in (np.cos, np.sin))
    half = np.eye(width)[np.r_[width // 2 : width, : width // 2]].T * np.r_[[-1.0] * (width // 2), [1.0] * (width // 2)]

    def rotated(x: Var) -> Var:
        return x * cos + x @ var(half) * sin

    hidden = w["model.embed_tokens.weight"].take(inputs)
    seen = Seen(var(0), var(0), [], [])
    for layer in range(config["num_hidden_layers"]):
        own = {k.removeprefix(f"model.layers.{layer}.").removesuffix(".weight"): v for k, v in w.items()
               if k.startswith(f"model.layers.{layer}.")}  # fmt: skip
        x = rms_norm(hidden, own["input_layernorm"], eps)
        q, k, v = (
            (x @ own[f"self_attn.{name}_proj"].T).view(len(at), n, width).move(1, 0, 2)
            for name, n in (("q", heads), ("k", kv), ("v", kv))
        )
        repeated: Array = np.repeat(np.arange(kv), heads // kv)
        q = rotated(rms_norm(q, own["self_attn.q_norm"], eps))
        k = rotated(rms_norm(k, own["self_attn.k_norm"], eps)).take(repeated)
        scores = q @ k.move(0, 2, 1) * width**-0.5 + np.where(unseen, -1e30, 0.0)
        mixed = (log_softmax(scores).exp() @ v.take(repeated)).move(1, 0, 2).view(len(at), heads * width)
        hidden = hidden + mixed @ own["self_attn.o_proj"].T

        x = rms_norm(hidden, own["post_attention_layernorm"], eps)
        router = x @ own["mlp.gate"].T
        chosen = np.argsort(-router.value, -1, kind="stable")[:, :top_k]
        picked = log_softmax(router).exp() * (chosen[:, :, None] == np.arange(experts)).any(1)
        gates = picked * picked.sum() ** -1.0
        for e in range(experts):
            gate, up, down = (own[f"mlp.experts.{e}.{name}_proj"].T for name in ("gate", "up", "down"))
            g = x @ gate
            hidden = hidden + (g * ((-g).exp() + 1.0) ** -1.0 * (x @ up)) @ down * gates.take(np.s_[:, e : e + 1])
        seen.routers.append(router.take(trained))
        seen.chosen.append(chosen[trained])
    last = rms_norm(hidden, w["model.norm.weight"], eps).take(trained)
    logits = log_softmax(last @ w["lm_head.weight"].T * (1 / temperature))
    seen.logprobs = logits.take((np.arange(len(last.value)), targets[trained]))
    seen.entropy = -(logits.exp() * logits).sum().view(-1)
    return seen


@dataclass
class Response:
    """A response that an update trains on: its first `trained` tokens, with an advantage."""

    ids: Array  # [P + trained]
    prompt: int
    trained: int
    advantage: float
    start: int  # where its tokens begin in the file's columns


def chosen_responses(a: dict[str, Array], updates: int, phi: int) -> list[list[Response]]:
    """Eq. 1 to 3: advantages in full groups, flat groups dropped, and exactly Φ tokens for every update."""
    found = []
    for g in range(len(a["prompt_ids"])):
        prompt = a["prompt_token_ids"][slice(*a["prompt_offsets"][g : g + 2])]
        members = [r for r in np.flatnonzero(a["groups"] == g) if not a["errors"][r]]
        rewards = a["rewards"][members]
        if np.ptp(rewards) == 0:
            continue
        for r, advantage in zip(members, (rewards - rewards.mean()) / rewards.std(), strict=True):
            tokens = a["token_ids"][slice(*a["offsets"][r : r + 2])]
            found.append(Response(np.r_[prompt, tokens], len(prompt), len(tokens), advantage, a["offsets"][r]))
    parts: list[list[Response]] = [[] for _ in range(updates)]
    total, before = sum(r.trained for r in found), 0
    for r in found:
        parts[min(updates * before // total, updates - 1)].append(r)
        before += r.trained
    for part in parts:
        left = phi
        for r in part:
            r.trained, left = min(r.trained, left), left - min(r.trained, left)
            r.ids = r.ids[: r.prompt + r.trained]
    return [[r for r in part if r.trained] for part in parts]


def objective(
    seen: Seen, old: Array, reference: Array, advantage: Array, share: list[Array], loss: Any
) -> tuple[list[Var], float]:
    """Eq. 2, 4, 5, 6, by token: the policy term, k3, entropy, balance and z, each [n]; the share of clipped tokens."""
    ratio = (seen.logprobs - old).exp()
    plain, bound = ratio * advantage, np.clip(ratio.value, 1 - loss["clip_low"], 1 + loss["clip_high"]) * advantage
    free = plain.value <= bound  # else the constant is taken, which has no gradient
    policy = -(plain * free + bound * ~free)
    d = -seen.logprobs + reference
    balance, z = var(np.zeros(len(old))), var(np.zeros(len(old)))
    for logits, f in zip(seen.routers, share, strict=True):
        p = log_softmax(logits)
        balance = balance + (p.exp() * f).sum().view(-1) * (len(f) / len(share))
        z = z + ((logits - p) ** 2).take(np.s_[:, 0]) * (1 / len(share))  # logits - log_softmax: the log-sum-exp
    return [policy, d.exp() - d - 1.0, seen.entropy, balance, z], float((~free).mean())


def adamw(w: Weights, gradient: Weights, norm: float, moments: list[Weights], step: int, o: Any) -> Weights:
    scale, (b1, b2) = min(1.0, o["clip_norm"] / (norm + 1e-6)), o["betas"]
    new = {}
    for k, g in gradient.items():
        m = moments[0][k] = b1 * moments[0].get(k, 0.0) + (1 - b1) * g * scale
        v = moments[1][k] = b2 * moments[1].get(k, 0.0) + (1 - b2) * (g * scale) ** 2
        ahead = m / (1 - b1**step) / (np.sqrt(v / (1 - b2**step)) + 1e-8)
        new[k] = w[k] * (1 - o["lr"] * o["weight_decay"]) - o["lr"] * ahead
    return new


def weights(folder: Path) -> Weights:
    return {k: v.astype(np.float64) for k, v in load_file(folder / "model.safetensors").items()}


def derive(run: Path) -> tuple[list[dict[str, float]], list[str], Weights]:
    """Every step of a run that saves after every batch: its numbers under the names of the metrics, `weights` being
    the relative error of the change of all weights in a batch; what the files themselves contradict; the last weights.
    """
    cfg = yaml.safe_load((run / "config.yaml").read_text())
    config = json.loads((Path(cfg["model"]) / "config.json").read_text())
    loss, stage, updates = cfg["loss"], cfg["stages"][0], cfg["updates"]
    start = now = weights(Path(cfg["model"]))
    moments: list[Weights] = [{}, {}]
    rows: list[dict[str, float]] = []
    wrong: list[str] = []
    share: list[Array] = []  # by layer: f of the last update
    for file in sorted((run / "rollouts").glob("*.npz")):
        with np.load(file) as opened:
            a = dict(opened)
        phi = stage["budget"]["phi"] // updates
        parts = chosen_responses(a, updates, phi)
        mask: Array = np.zeros(len(a["token_ids"]), bool)
        for r in itertools.chain(*parts):
            mask[r.start : r.start + r.trained] = True
        if not np.array_equal(mask, a["trained"]):
            wrong.append(f"{file.name}: trained")

        def see(w: Weights, part: list[Response]) -> tuple[dict[str, Var], Seen]:
            nodes = {k: Var(v) for k, v in w.items()}
            return nodes, forward(nodes, config, [(r.ids, r.trained) for r in part], cfg["temperature"])

        before = now
        olds = [see(before, part)[1] for part in parts]
        previous = share if loss["balance_over"] == "previous" else []
        for u, (part, old) in enumerate(zip(parts, olds, strict=True)):
            sampled = np.concatenate([a["logprobs"][r.start : r.start + r.trained] for r in part])
            if not np.allclose(old.logprobs.value, sampled, atol=1e-4):
                wrong.append(f"{file.name}: logprobs of update {u}")
            advantage = np.concatenate([np.full(r.trained, r.advantage) for r in part])
            experts = old.routers[0].value.shape[-1]
            nodes, seen = see(now, part)
            counted, share = (
                [np.bincount(c.ravel(), minlength=experts) / c.size for c in x.chosen] for x in (old, seen)
            )
            reference = see(start, part)[1].logprobs.value
            terms, clipped = objective(seen, old.logprobs.value, reference, advantage, previous or counted, loss)
            factors = (1.0, loss["kl"], -loss["entropy"], loss["balance"], loss["z"])
            total = sum((t * f for t, f in zip(terms, factors, strict=True)), var(np.zeros(len(sampled))))
            whole = total.sum() * (1 / phi)
            backward(whole)
            gradient = {k: n.grad for k, n in nodes.items()}
            norm = float(np.sqrt(sum((g**2).sum() for g in gradient.values())))
            means = {
                k: t.value.mean() for k, t in zip(("kl", "entropy", "balance_loss", "z_loss"), terms[1:], strict=True)
            }
            rows.append({"tokens_trained": len(sampled), "loss": float(whole.value[0]), "grad_norm": norm, **means,
                         "policy_loss": terms[0].value.sum() / phi, "clip_frac": clipped})  # fmt: skip
            now = adamw(now, gradient, norm, moments, len(rows), cfg["optimizer"])
        saved = weights(run / "checkpoints" / f"step_{len(rows):06d}")
        off = sum(((now[k] - saved[k]) ** 2).sum() for k in saved)
        rows[-1]["weights"] = float(np.sqrt(off / sum(((saved[k] - before[k]) ** 2).sum() for k in saved)))
    return rows, wrong, now
