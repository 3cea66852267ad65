"""Rewards: the verifiers of the built-in domains, and a pool of killable processes that runs any verifier.

What lives here: `VerifierPool` (a response and its row in, a `Verdict` out), loading and checking verifiers
(`check_verifiers`), the built-in verifiers. What does not: running programs (`ringrl.sandbox`), what a domain is
(`ringrl.domains`), averaging, advantages, data files, configuration.

Invariants: a reward is in [0, 1] and depends on the response; a failure on our side is a verdict of kind `error`,
never a zero; nothing here imports torch; no process or file outlives its pool or sandbox.
"""

from __future__ import annotations

from ringrl.rewards.load import VERIFIERS
from ringrl.rewards.pool import VerifierPool, check_verifiers
from ringrl.rewards.verdict import Verdict, after_thinking, graded

__all__ = ["VERIFIERS", "Verdict", "VerifierPool", "after_thinking", "check_verifiers", "graded"]
