"""The numbers of whole steps of `ringrl rl`, against a derivation in NumPy from what the run recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.cli.derivation import derive
from tests.conftest import VERIFIERS, Inputs, lines, meddle, ringrl, rl_config, write_yaml

pytestmark = pytest.mark.usefixtures("uneven_rewards")

NOBODY_IS_RIGHT = """
    import ringrl.rewards.answers as answers
    from ringrl.rewards import Verdict
    answers.verify_math = lambda text, reference: Verdict("fail", "")
"""

LAYOUTS: dict[str, list[str]] = {
    "one rank": [],
    "two ranks, experts shared out": ["trainer.ranks=2", "trainer.parallel.expert=2"],
    "two ranks, experts shared out, zero 3": ["trainer.ranks=2", "trainer.parallel={expert: 2, zero: 3}"],
}


@pytest.mark.parametrize("layout", [pytest.param(x, marks=pytest.mark.slow) if "zero 3" in x else x for x in LAYOUTS])
def test_steps_are_what_the_paper_says(layout: str, inputs: Inputs, tmp_path: Path) -> None:
    loss = {
        "balance_over": "batch" if layout == "one rank" else "previous",
        "kl": 0.1,
        "entropy": 0.01,
        "balance": 0.02,
        "z": 0.005,
        "clip_low": 0.05,
        "clip_high": 0.03,
    }  # all show
    more: dict[str, Any] = {
        "loss": loss,
        "updates": 2,
        "temperature": 0.7,
        "optimizer": {"lr": 1e-3, "weight_decay": 0.1},
    }
    config = rl_config(inputs, tmp_path / "run", **more)
    config["stages"][0]["budget"]["flat_groups"] = "drop"
    result = ringrl("rl", write_yaml(tmp_path / "rl.yaml", config), *LAYOUTS[layout])
    assert result.code == 0, result.text
    derived, wrong, _ = derive(tmp_path / "run")
    assert wrong == []
    rows = lines(tmp_path / "run" / "metrics.jsonl")
    assert len(rows) == len(derived) == 4
    for row, own in zip(rows, derived, strict=True):
        assert row["clip_frac"] == pytest.approx(own.pop("clip_frac"), abs=0.011)  # of 100 tokens, one at the bound
        for key, value in own.items():
            if key != "weights":
                assert row[key] == pytest.approx(value, rel=1e-4), (row["step"], key)
    assert [own["weights"] for own in derived if "weights" in own] == pytest.approx([0, 0], abs=1e-4)
    assert max(row["clip_frac"] for row in rows) > 0.01
    assert rows[-1]["kl"] > 1e-6


def test_a_step_without_a_trained_token_moves_nothing(inputs: Inputs, tmp_path: Path) -> None:
    """Nobody is right, so all groups are flat; decay alone would move the weights by 10 %."""
    config = rl_config(inputs, tmp_path / "run", optimizer={"lr": 1.0, "weight_decay": 0.1}, save_every=1)
    config["stages"][0] |= {"steps": 2, "budget": {"phi": 200, "shortfall": "train_fewer"}}
    with meddle(tmp_path / "meddle", VERIFIERS, NOBODY_IS_RIGHT):
        result = ringrl("rl", write_yaml(tmp_path / "rl.yaml", config))
    assert result.code == 0, result.text
    rows = lines(tmp_path / "run" / "metrics.jsonl")
    seen = [(r["step"], r["tokens_trained"], r["updated"], r["grad_norm"]) for r in rows]
    assert seen == [(1, 0, False, 0), (2, 0, False, 0)]
    before, after = (load_file(f / "model.safetensors")
                     for f in (Path(inputs.model), tmp_path / "run" / "checkpoints" / "step_000002"))  # fmt: skip
    assert all((after[name] == before[name]).all() for name in before)
