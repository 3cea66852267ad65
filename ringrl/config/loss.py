"""The knobs of the method: the loss and its named presets, C3PO's budget, the watchdog.

A method is a preset over the dials of `ringrl.algo.loss`; a dial set explicitly overrides its preset, and the resolved
configuration shows all of them. Contradictory settings are refused, never repaired.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ringrl.config.load import Knobs

Method = Literal["c3po", "grpo", "dr_grpo", "dapo", "gspo", "gspo_token", "cispo", "rloo"]

# Differences from the defaults of Loss, which are the paper's settings.
NO_KL = {"kl": 0.0, "reference": "none", "entropy": 0.0}
GSPO = {"clip_low": 3e-4, "clip_high": 4e-4, "weight": "response", "denominator": "responses", **NO_KL}
PRESETS: dict[str, dict[str, Any]] = {
    "c3po": {},  # Eq. 2
    "grpo": {"weight": "response", "denominator": "responses", "entropy": 0.0},  # Eq. 1
    "dr_grpo": {"advantage": "centered", "denominator": "max_tokens", **NO_KL},  # arXiv 2503.20783
    "dapo": {"clip_high": 0.28, "denominator": "tokens", "overlong_buffer": 0.2, **NO_KL},  # arXiv 2503.14476
    "gspo": {"ratio": "sequence", **GSPO},  # arXiv 2507.18071
    "gspo_token": {"ratio": "sequence_token", **GSPO},
    "cispo": {"clip": "cispo", "clip_low": 1.0, "clip_high": 5.0, "denominator": "tokens", **NO_KL},  # 2506.13585
    "rloo": {"advantage": "leave_one_out", "ratio": "none", "clip": "none", "denominator": "responses", **NO_KL},
}  # rloo: arXiv 2402.14740; CISPO's clip value is ScaleRL's, since MiniMax's is not public

# (low, high) per correction, from its source or common use
BOUNDS = {
    "none": (0.0, 0.0),
    "tis": (0.0, 2.0),
    "token_mis": (0.0, 2.0),
    "sequence_mis": (0.0, 2.0),
    "icepop": (0.5, 5.0),  # arXiv 2510.18855
    "kpop": (0.0, 2.0),  # high is φ; the report gives no value
    "geometric": (0.999, 1.002),
}


TOKEN_LEVEL = ("tis", "token_mis", "icepop", "kpop")  # corrections that treat each token separately


class Correction(Knobs):
    """Corrects for a sampler whose probabilities differ from the trainer's (`ringrl.algo.correction`)."""

    method: Literal["none", "tis", "token_mis", "icepop", "kpop", "sequence_mis", "geometric"] = "none"
    low: float = Field(0.0, ge=0)  # lower bound of the ratio; not given = the method's default
    high: float = Field(0.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _bounds(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or (bounds := BOUNDS.get(raw.get("method", "none"))) is None:
            return raw  # the field's own check reports what is wrong
        return {"low": bounds[0], "high": bounds[1], **raw}

    @model_validator(mode="after")
    def _check(self) -> Correction:
        if self.method != "none" and not self.low < self.high:
            raise ValueError(f"low: got {self.low}, expected less than high={self.high}")
        if self.method in ("none", "tis", "kpop") and self.low:
            raise ValueError(f"low: got {self.low}, expected 0 with method {self.method}, which has no lower bound")
        return self


class Loss(Knobs):
    """The loss (Eq. 1-6). Defaults are C3PO with the paper's coefficients [P §4.1.1, §4.3.2]."""

    method: Method = "c3po"
    advantage: Literal["standardized", "centered", "leave_one_out"] = "standardized"
    ratio: Literal["token", "sequence", "sequence_token", "none"] = "token"
    clip: Literal["ppo", "cispo", "none"] = "ppo"
    clip_low: float = Field(0.2, ge=0, le=1)  # ε_low; 1 = no lower bound
    clip_high: float = Field(0.2, gt=0)  # ε_high
    weight: Literal["token", "response"] = "token"
    denominator: Literal["phi", "tokens", "responses", "max_tokens"] = "phi"
    overlong_buffer: float = Field(0.0, ge=0, le=1)  # share of the length limit in which length is penalised; 0 = off
    overlong_filter: bool = False  # drop truncated responses from the loss but not from their group's mean

    kl: float = Field(1e-3, ge=0)  # β; 0 = no reference model in memory
    kl_estimator: Literal["k1", "k2", "k3", "unbiased"] = "k3"
    reference: Literal["run", "stage", "none"] = "run"  # KL to the model at the start of the run or stage [ours]
    reference_every: int = Field(0, ge=0)  # steps between copies of the policy to the reference; 0 = frozen

    entropy: float = Field(5e-4, ge=0)  # α of the entropy bonus; with a target, its initial value
    entropy_target: float = Field(0.0, ge=0)  # nats; 0 = α is constant
    entropy_step: float = Field(0.0, ge=0)  # Δ, the change of α per step towards the target

    balance: float = Field(1e-5, ge=0)  # router load-balance coefficient
    # tokens over which expert shares f are counted; "batch" costs a forward pass, "previous" is one batch late
    balance_over: Literal["batch", "microbatch", "previous"] = "batch"
    z: float = Field(1e-7, ge=0)  # router z-loss coefficient
    freeze_router: bool = False

    old_logprobs: Literal["trainer", "sampler"] = "trainer"  # π_old: recomputed, or as reported by the sampler
    correction: Correction = Correction()
    router_replay: Literal["none", "trainer", "engine"] = "none"  # routing of the old pass (R2) or engine (R3)

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        return {**PRESETS.get(str(raw.get("method", "c3po")), {}), **raw}

    @model_validator(mode="after")
    def _check(self) -> Loss:
        if contradiction := next((text for wrong, text in self._contradictions() if wrong), ""):
            raise ValueError(contradiction)
        return self

    def _contradictions(self) -> list[tuple[bool, str]]:
        refers = self.reference != "none"
        token_level = self.correction.method in TOKEN_LEVEL
        return [
            (self.method == "c3po" and self.denominator != "phi",
             f"denominator: got {self.denominator}, expected phi with method c3po: dividing by Φ is the method; choose "
             f"another method"),
            (self.weight == "response" and self.denominator != "responses",
             f"weight: got response, expected token with denominator {self.denominator}: a mean over each response "
             f"belongs to denominator responses"),
            (self.kl > 0 and not refers,
             f"kl: got {self.kl:g}, expected 0 with reference none; or set reference run or stage"),
            (self.reference_every > 0 and not self.kl,
             f"reference_every: got {self.reference_every}, expected 0 with kl 0: there is no reference to refresh"),
            (self.ratio == "none" and self.clip != "none",
             f"clip: got {self.clip}, expected none with ratio none: there is no ratio to clip"),
            (self.ratio == "none" and self.old_logprobs == "sampler",
             "old_logprobs: got sampler, expected trainer with ratio none: nothing is compared with them"),
            (self.ratio == "sequence" and token_level,
             f"correction.method: got {self.correction.method}, expected sequence_mis or geometric with ratio "
             f"sequence: a token cannot be masked alone when its response has one ratio; or ratio sequence_token"),
            (self.old_logprobs == "sampler" and self.correction.method != "none",
             f"correction.method: got {self.correction.method}, expected none with old_logprobs sampler: "
             f"the ratio to the sampler is in the loss already"),
            (self.entropy_target > 0 and not self.entropy_step,
             "entropy_step: got 0, expected above 0 with an entropy_target: the coefficient could not move"),
            (self.entropy_step > 0 and not self.entropy_target,
             "entropy_target: got 0, expected above 0 with an entropy_step: there is nothing to move towards"),
        ]  # fmt: skip


class Budget(Knobs):
    """C3PO's token budget Φ [P Eq. 2-3]. Choices are [ours] where the paper is silent."""

    phi: int = Field(409_600, ge=1)  # tokens [P §4.1.1]
    scope: Literal["step", "rank", "minibatch"] = "step"  # the unit that Φ applies to; the paper does not say
    order: Literal["prompt", "shuffle", "length_balanced", "informative"] = "prompt"  # [P Fig. 3] shows "prompt"
    keep: tuple[float, float] = (0.5, 1.0)  # `informative`: share of responses and tokens, at the first and last step
    cut: Literal["exact", "overshoot"] = "exact"  # last response: cut at Φ [P Fig. 3], or kept whole [P Eq. 3]
    flat_groups: Literal["drop", "keep", "replace"] = "drop"  # groups whose rewards are all equal (A = 0)
    shortfall: Literal["resample", "train_fewer"] = "resample"  # when fewer than Φ tokens are available
    max_resamples: int = Field(4, ge=0)  # extra prompt batches before a shortfall is accepted
    retention: int = Field(0, ge=0)  # rollout batches an unfinished response may be carried over (C3PO++); 0 = off

    @model_validator(mode="after")
    def _check(self) -> Budget:
        if not all(0 < k <= 1 for k in self.keep):
            raise ValueError(f"keep: got {list(self.keep)}, expected two shares above 0 and at most 1")
        if self.order == "informative" and (self.scope == "rank" or self.cut == "overshoot"):
            got = (
                "scope: got rank, expected step or minibatch"
                if self.scope == "rank"
                else "cut: got overshoot, expected exact"
            )
            raise ValueError(
                f"{got} with order informative: it takes the best Φ tokens of an update, wherever they are"
            )
        return self


class Watchdog(Knobs):
    """When to stop a run that has collapsed. All limits are [ours]; steps are compared within a stage."""

    on_collapse: Literal["stop", "rollback"] = "stop"  # stop: exit 3; rollback: last checkpoint, skip the batch
    max_rollbacks: int = Field(3, ge=0)
    window: int = Field(20, ge=1)  # steps of history
    grad_norm: float = Field(100.0, gt=1)  # multiple of the window's median: collapse; a tenth of it: warning
    shift: float = Field(2.0, gt=0)  # nats per token in one update: collapse; a quarter of it: warning
    entropy: float = Field(10.0, gt=1)  # factor off the window's median, either way: collapse; a third: warning
    reward: float = Field(0.3, ge=0, le=1)  # below this share of the best window: collapse; below twice that: warning
    patience: int = Field(10, ge=1)  # rollout batches with zero or fallen reward before it counts as a collapse
    mismatch: float = Field(0.05, gt=0)  # nats, k3 estimate of the KL to the sampler: warning
