"""Methods, budgets and routers through the loop: what each setting must do to the numbers."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.conftest import Inputs, ringrl, ringrl_until, rl_config, timeless, write_yaml

pytestmark = pytest.mark.usefixtures("uneven_rewards")

SAME = ("loss", "policy_loss", "kl", "grad_norm", "entropy", "clip_frac", "ratio_max", "balance_loss", "masked_frac")
VARIANTS = {
    "gspo": ["loss.method=gspo", "updates=2", "loss.correction.method=sequence_mis"],
    "c3po": ["loss.correction.method=icepop", "loss.router_replay=trainer", "loss.kl_estimator=unbiased", "updates=2",
             "stages.0.budget.order=informative"],
}  # fmt: skip


def run(
    inputs: Inputs, folder: Path, *more: str, stages: Sequence[dict[str, Any]] = ({},), **sections: Any
) -> list[dict[str, Any]]:
    """The metrics of two steps of every stage on uneven rewards, with groups that have no advantage left out."""
    folder.mkdir(exist_ok=True)
    config = rl_config(inputs, folder / "run", **sections)
    plain = config["stages"][0] | {"budget": {"phi": 200, "order": "shuffle"}, "steps": 2}
    config["stages"] = [plain | {"name": f"stage{i}"} | stage for i, stage in enumerate(stages)]
    result = ringrl("rl", write_yaml(folder / "rl.yaml", config), *more)
    assert result.code == 0, result.text
    return timeless(folder / "run" / "metrics.jsonl")


@pytest.fixture(scope="module")
def plain(inputs: Inputs, uneven_rewards: None, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run(inputs, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) for n in VARIANTS])
def test_no_method_depends_on_the_layout(name: str, inputs: Inputs, tmp_path: Path) -> None:
    one = run(inputs, tmp_path / "one", *VARIANTS[name])
    other = run(inputs, tmp_path / "other", *VARIANTS[name], "trainer.ranks=2", "trainer.microbatch_tokens=150")
    for a, b in zip(one, other, strict=True):
        assert {k: b[k] for k in SAME} == pytest.approx({k: a[k] for k in SAME}, rel=2e-4, abs=2e-6)
        assert a["tokens_trained"] == b["tokens_trained"] > 0
    assert abs(one[0]["policy_loss"]) > 1e-4
    assert one[0]["ratio_max"] == pytest.approx(1, abs=1e-4)
    assert one[1]["ratio_max"] > 1.0001


def test_budget_orders_and_cuts(plain: list[dict[str, Any]], inputs: Inputs, tmp_path: Path) -> None:
    budgets = [{"order": "informative", "keep": [0.25, 1]}, {"order": "length_balanced", "cut": "overshoot"}]
    rows = run(inputs, tmp_path, stages=[{"budget": {"phi": 200, **budget}} for budget in budgets])
    informative, whole = rows[:2], rows[2:]
    assert [r["tokens_trained"] for r in informative + plain] == [200] * 4
    assert all(200 < r["tokens_trained"] < 264 for r in whole)
    assert informative[0]["entropy"] > plain[0]["entropy"]  # it takes the tokens where the policy is uncertain


@pytest.mark.slow
def test_flat_groups_are_replaced_and_truncated_responses_left_out_of_the_loss(inputs: Inputs, tmp_path: Path) -> None:
    budget = {"phi": 200, "order": "shuffle", "flat_groups": "replace"}
    stages = [{"samples": 2, "budget": budget}, {"samples": 16}]
    rows = run(inputs, tmp_path, "loss.method=dapo", "loss.overlong_filter=true", stages=stages)
    replaced, left_out = rows[:2], rows[2:]
    assert all(r["groups_mixed"] >= 4 for r in replaced)
    assert any(r["groups_mixed"] + r["groups_solved"] + r["groups_unsolved"] > 4 for r in replaced)
    assert all(0.5 < r["truncated_frac"] < 1 for r in left_out)
    assert all(0 < r["tokens_trained"] < 0.5 * r["tokens_generated"] for r in left_out)


@pytest.mark.slow
def test_rloo_is_the_same_loop_and_a_frozen_router_stays_as_it_was(inputs: Inputs, tmp_path: Path) -> None:
    rows = run(inputs, tmp_path, "loss.method=rloo", "loss.freeze_router=true", "loss.balance=0.1")
    assert all(r["ratio_max"] == r["ratio_min"] == 1 and r["tokens_trained"] > 200 for r in rows)
    before = load_file(Path(inputs.model) / "model.safetensors")
    after = load_file(tmp_path / "run" / "checkpoints" / "step_000002" / "model.safetensors")
    same = {name for name in before if (before[name] == after[name]).all()}
    assert same == {name for name in before if name.endswith("mlp.gate.weight")} != set()


@pytest.mark.slow
def test_the_reference_is_refreshed_and_the_entropy_coefficient_follows_its_target(
    inputs: Inputs, tmp_path: Path
) -> None:
    more = [
        "stages.0.steps=4",
        "loss.entropy_target=6.2",
        "loss.entropy_step=0.01",
        "loss.entropy=0.02",
        "loss.reference_every=2",
        "save_every=100",
    ]
    rows = run(inputs, tmp_path, *more, optimizer={"lr": 3e-3})
    kl = [r["kl"] for r in rows]
    assert kl[::2] == pytest.approx([0, 0], abs=1e-9)
    assert min(kl[1::2]) > 1e-4
    c = alpha = 0.02
    for row in rows:
        assert row["entropy_coefficient"] == pytest.approx(alpha)
        low = row["entropy"] <= 6.2
        c = c + 0.01 if low else max(c - 0.01, 0)
        alpha = c if low else 0
    assert len({r["entropy_coefficient"] for r in rows}) > 1


def test_the_samplers_log_probs_can_stand_for_the_old_ones(
    plain: list[dict[str, Any]], inputs: Inputs, tmp_path: Path
) -> None:
    for a, b in zip(plain, run(inputs, tmp_path, "loss.old_logprobs=sampler"), strict=True):
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-3)
        assert a["ratio_max"] == 1 != b["ratio_max"]
        assert b["ratio_max"] == pytest.approx(1, abs=1e-4)


def carry_over_config(inputs: Inputs, folder: Path) -> Path:
    config = rl_config(inputs, folder / "run", loss={"correction": {"method": "icepop"}})
    config["stages"][0] |= {
        "data": [inputs.source("rl_math", "rl_code")],  # prompts of many lengths, so that some finish first
        "max_total_tokens": 96,
        "budget": {"phi": 100, "retention": 1, "max_resamples": 8},
        "steps": 6,
    }
    return write_yaml(folder / "rl.yaml", config)


@pytest.fixture(scope="module")
def carried(inputs: Inputs, uneven_rewards: None, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("carried")
    result = ringrl("rl", carry_over_config(inputs, folder))
    assert result.code == 0, result.text
    return timeless(folder / "run" / "metrics.jsonl")


def test_carried_over_rollouts_are_continued_by_newer_weights_and_expire(carried: list[dict[str, Any]]) -> None:
    assert [r["tokens_trained"] for r in carried] == [100] * 6
    assert carried[0]["staleness"] == 0 < max(r["staleness"] for r in carried)
    assert max(r["mismatch_kl"] for r in carried) > 1e-5 > carried[0]["mismatch_kl"]
    assert sum(r["responses_expired"] for r in carried) > 0
    before = 0
    for r in carried:  # no token is lost or counted twice
        gone = r["tokens_generated"] + before - r["tokens_trained"] - r["tokens_dropped"] - r["tokens_carried"]
        assert (gone > 0) if r["responses_expired"] else (gone == 0)
        before = r["tokens_carried"]


@pytest.mark.slow
def test_carried_over_rollouts_survive_being_killed(
    carried: list[dict[str, Any]], inputs: Inputs, tmp_path: Path
) -> None:
    file, metrics = carry_over_config(inputs, tmp_path), tmp_path / "run" / "metrics.jsonl"
    three = lambda: metrics.is_file() and metrics.read_text().count("\n") >= 3  # noqa: E731
    assert ringrl_until(three, signal.SIGKILL, "rl", file).code == 128 + signal.SIGKILL
    assert ringrl("rl", file, "--resume").code == 0
    assert timeless(metrics) == carried
