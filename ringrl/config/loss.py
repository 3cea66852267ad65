"""The knobs of the method: the loss and its named presets, C3PO's budget, the watchdog.

A named method is a preset over the dials of `ringrl.algo.loss`; a dial that you set yourself wins over the preset's,
and the resolved configuration shows them all. Settings that contradict each other are refused, never mended.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ringrl.config.load import Knobs

Method = Literal["c3po", "grpo", "dr_grpo", "dapo", "gspo", "gspo_token", "cispo", "rloo"]

# Against the paper's settings, which are the defaults of Loss.
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
}  # the last: arXiv 2402.14740; the value of CISPO's clip is ScaleRL's, MiniMax's is not public

# (low, high) of each correction, from its source or from common use
BOUNDS = {
    "none": (0.0, 0.0),
    "tis": (0.0, 2.0),
    "token_mis": (0.0, 2.0),
    "sequence_mis": (0.0, 2.0),
    "icepop": (0.5, 5.0),  # arXiv 2510.18855
    "kpop": (0.0, 2.0),  # high is φ; the report gives no value
    "geometric": (0.999, 1.002),
}


TOKEN_LEVEL = ("tis", "token_mis", "icepop", "kpop")  # corrections that treat every token by itself


class Correction(Knobs):
    """For a sampler whose probabilities are not the trainer's (`ringrl.algo.correction`)."""

    method: Literal["none", "tis", "token_mis", "icepop", "kpop", "sequence_mis", "geometric"] = "none"
    low: float = Field(0.0, ge=0)  # lower bound of the ratio; the method's own when not given
    high: float = Field(0.0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _bounds(cls, given: Any) -> Any:
        if not isinstance(given, dict) or (bounds := BOUNDS.get(given.get("method", "none"))) is None:
            return given  # the field's own check says what is wrong
        return {"low": bounds[0], "high": bounds[1], **given}

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
    overlong_buffer: float = Field(0.0, ge=0, le=1)  # share of the room in which length is punished; 0 = off
    overlong_filter: bool = False  # leave truncated responses out of the loss, keep them in their group's mean

    kl: float = Field(1e-3, ge=0)  # β; 0 = no reference model in memory
    kl_estimator: Literal["k1", "k2", "k3", "unbiased"] = "k3"
    reference: Literal["run", "stage", "none"] = "run"  # KL against the start of the run or stage [ours]
    reference_every: int = Field(0, ge=0)  # steps after which the reference becomes the policy; 0 = frozen

    entropy: float = Field(5e-4, ge=0)  # α of the exploration bonus; with a target, where it starts
    entropy_target: float = Field(0.0, ge=0)  # nats; 0 = α is constant
    entropy_step: float = Field(0.0, ge=0)  # Δ by which α moves towards the target

    balance: float = Field(1e-5, ge=0)  # router load balance
    balance_over: Literal["batch", "microbatch"] = "batch"  # what f counts
    z: float = Field(1e-7, ge=0)  # router z-loss
    freeze_router: bool = False

    old_logprobs: Literal["trainer", "sampler"] = "trainer"  # π_old: recomputed, or what the sampler said
    correction: Correction = Correction()
    router_replay: Literal["none", "trainer", "engine"] = "none"  # experts of the old pass (R2) or the engine (R3)

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {**PRESETS.get(str(given.get("method", "c3po")), {}), **given}

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
    """C3PO's token budget Φ [P Eq. 2-3]. Where the paper is silent the choice is [ours]."""

    phi: int = Field(409_600, ge=1)  # tokens [P §4.1.1]
    scope: Literal["step", "rank", "minibatch"] = "step"  # what Φ counts: open in the paper
    order: Literal["prompt", "shuffle", "length_balanced", "informative"] = "prompt"  # [P Fig. 3] draws the first
    keep: tuple[float, float] = (0.5, 1.0)  # `informative`: share of responses and tokens, first and last step
    cut: Literal["exact", "overshoot"] = "exact"  # the last response: at the token [P Fig. 3], or whole [P Eq. 3]
    flat_groups: Literal["drop", "keep", "replace"] = "drop"  # groups whose rewards are all equal (A = 0)
    shortfall: Literal["resample", "train_fewer"] = "resample"  # fewer than Φ tokens to choose from
    max_resamples: int = Field(4, ge=0)  # further batches of prompts before a shortfall is accepted
    retention: int = Field(0, ge=0)  # rollout batches an unfinished response is carried over (C3PO++); 0 = none is

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
    """When a run is no longer worth its electricity. All limits are [ours]; steps are compared within a stage."""

    on_collapse: Literal["stop", "rollback"] = "stop"  # exit 3; or back to the last checkpoint, without the batch
    max_rollbacks: int = Field(3, ge=0)
    window: int = Field(20, ge=1)  # steps of history
    grad_norm: float = Field(100.0, gt=1)  # times the window's median: collapse; a tenth of it: warning
    shift: float = Field(2.0, gt=0)  # nats a token by one update: collapse; a quarter of it: warning
    entropy: float = Field(10.0, gt=1)  # times above or below the window's median: collapse; a third of it: warning
    reward: float = Field(0.3, ge=0, le=1)  # below this share of the best window: collapse; below twice it: warning
    patience: int = Field(10, ge=1)  # rollout batches: without any reward, or of fallen reward, before it is a collapse
    mismatch: float = Field(0.05, gt=0)  # nats of k3: warning; a sampler this far off trains badly
