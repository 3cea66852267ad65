"""`ringrl plan`: every kind of configuration, any number of GPUs, what does not fit, what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringrl.commands.table import command_of, load_any
from ringrl.config.commands import RLConfig
from ringrl.config.data import DataConfig
from ringrl.config.load import Knobs, resolve
from ringrl.config.sections import Rollout, Trainer
from ringrl.errors import ConfigError, DataError
from ringrl.plan import advice, timing
from ringrl.plan.hardware import GPUS, find_gpu
from ringrl.plan.measured import measured
from ringrl.plan.memory import SPARE, rank_memory
from ringrl.plan.report import Section, as_json, as_text, whole
from ringrl.plan.shape import read_shape
from ringrl.plan.timing import Assumed
from tests.conftest import ringrl
from tests.plan.test_shape import LING_LITE_1_5
from tests.test_house import loaded_by

SOURCE = {"files": ["elsewhere.jsonl"]}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(LING_LITE_1_5))
    return str(tmp_path)


def rl(model: str, **more: Any) -> RLConfig:
    stage = {"name": "math", "data": [SOURCE], "steps": 100, "budget": {"phi": 409600, "scope": "rank"}}
    raw: dict[str, Any] = {"run": "r", "model": model, "stages": [stage], **more}
    return resolve(RLConfig, raw, (), "x")


def assumed(**more: Any) -> Assumed:
    return Assumed(**{"gpu": GPUS["h100"], "mfu": 0.25, "bandwidth": 0.6, "prompt": 256, "response": 12000, "rows": 0,
                      **more})  # fmt: skip


def plan(cfg: Knobs, a: Assumed, gpus: int = 0) -> list[Section]:
    return whole(command_of(cfg).plan(cfg, a, gpus), a)


def items(sections: Any) -> dict[str, float]:
    return {i["name"]: i["value"] for s in as_json(sections) for i in s["items"]}


def test_a_step_by_hand(model: str):
    """Ling-lite-1.5 on 8 training and 8 sampling H100."""
    cfg, a, shape = rl(model, trainer={"ranks": 8}, rollout={"workers": 8}), assumed(), read_shape(model)
    step = timing.rl_step(shape, cfg, cfg.stages[0], a)
    trained = 8 * 409600
    count, n = trained / 12000, 12256
    once = 2 * shape.cost.layers * n * count + shape.cost.pair * n * (n + 1) / 2 * count + 2 * shape.cost.head * trained
    assert (step.training.old, step.training.reference) == pytest.approx((once, once))
    assert step.train_s == pytest.approx(step.training.flops / (8 * 989e12 * 0.25))
    assert step.training.update == pytest.approx(3 * once + 2 * shape.cost.head * trained)
    d = step.decoding
    cache = 0.9 * 80e9 - 2 * shape.total - (2 << 30)
    assert d.cached == int(cache / (2 * 28 * 1024))
    assert d.sequences == pytest.approx(d.cached / n)
    taken = 64 * (1 - (1 - 6 / 64) ** d.sequences)
    weights = shape.outside - 126464 * 2048 + 28 * taken * 3 * 2048 * 1408
    assert d.step_bytes == pytest.approx(2 * weights + d.sequences * (256 + 6000) * 2 * 28 * 1024)
    assert d.step_s == pytest.approx(d.step_bytes / (3350e9 * 0.6))
    assert d.bulk_s == pytest.approx(512 * 16 * 12000 / 8 / d.sequences * d.step_s)
    decoding = 2 * (shape.cost.layers + shape.cost.head) + shape.cost.pair * (256 + 6000)
    prefill = 512 * sum(shape.cost.forward([256], 1))  # a prompt is read once for its 16 samples
    assert d.flops == pytest.approx(512 * 16 * 12000 * decoding + prefill)
    assert step.sync_bytes == 2 * shape.total
    assert step.sync_s == pytest.approx(2 * shape.total / 50e9 + 5603 * timing.LOAD_S)  # two nodes
    assert step.seconds == pytest.approx(d.seconds + step.train_s + step.sync_s)
    assert step.gpus == 16


def test_sampling_ahead_takes_the_longer_of_both(model: str):
    more = {"max_staleness": 1, "loss": {"correction": {"method": "tis"}}, "trainer": {"ranks": 4}}
    step = timing.rl_step(read_shape(model), cfg := rl(model, **more), cfg.stages[0], assumed())
    assert step.seconds == max(step.decoding.seconds, step.train_s) + step.sync_s


def test_a_pass_that_is_not_made_costs_nothing(model: str):
    shape = read_shape(model)
    base = rl(model, loss={"kl": 0, "old_logprobs": "sampler", "balance": 0})
    t = timing.rl_training(shape, base, base.stages[0], assumed())
    assert (t.old, t.reference) == (0, 0)
    again = rl(model, loss={"kl": 0, "old_logprobs": "sampler", "balance": 0}, trainer={"recompute": True})
    more = timing.rl_training(shape, again, again.stages[0], assumed()).update - t.update
    assert more == pytest.approx(shape.cost.forward([12256], 0)[0] * t.tokens / 12000)


def test_more_sequences_than_the_cache_holds_are_told(model: str):
    def told(concurrent: int) -> list[str]:
        cfg = rl(model, rollout={"concurrent": concurrent})
        section = next(s for s in plan(cfg, assumed()) if s.title.startswith("memory of a worker"))
        return [line for line in section.advice if line.startswith("rollout.concurrent")]

    [line] = told(256)
    held = int(line.rpartition("=")[2])
    assert line.startswith(f"rollout.concurrent=256: the cache holds {held} responses of 12,256 tokens, and vLLM would")
    assert told(held) == []
    assert told(held + 1)


def test_assumptions_can_be_those_that_a_run_showed(model: str, tmp_path: Path):
    cfg, run = rl(model, trainer={"ranks": 8}, rollout={"workers": 8}), tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(cfg.model_dump(mode="json")))
    step = timing.rl_step(read_shape(model), cfg, cfg.stages[0], assumed(mfu=0.2, bandwidth=0.5, response=9000))
    rollout_s = step.decoding.prefill_s + step.decoding.bulk_s
    row = {"stage": "math", "response_length_mean": 9000, "time_train_s": step.train_s, "time_rollout_s": rollout_s}
    first = row | {"time_train_s": 1e9}  # warms up
    rows = [json.dumps(r | {"step": i + 1}) for i, r in enumerate([first, row])]
    (run / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    found = measured(str(run), assumed())
    assert (found.mfu, found.response) == pytest.approx((0.2, 9000))
    assert found.bandwidth == pytest.approx(0.5, rel=0.02)  # the prefill is bound by FLOPs
    texts = as_text(whole(command_of(cfg).plan(cfg, found, 0), found)).splitlines()
    assert [line.split()[-4:] for line in texts if line.startswith("  share of the F")] == [
        ["that", "are", "computed;", str(run)]
    ]
    (run / "metrics.jsonl").write_text(json.dumps(row | {"step": 1}) + "\n")
    with pytest.raises(DataError, match=r"^--measured: got .*metrics\.jsonl with fewer than two rollout batches"):
        measured(str(run), assumed())


def test_a_large_batch_reads_all_experts_and_compute_binds_in_the_end(model: str):
    shape, short = read_shape(model), assumed(prompt=1)
    one = timing.decode_step(shape, Rollout(), 1, 0, short)
    many = timing.decode_step(shape, Rollout(), 1e5, 0, short)
    embedding = 126464 * 2048
    assert one[0] == pytest.approx(2 * (shape.active - embedding))
    assert many[0] == pytest.approx(2 * (shape.total - embedding))
    assert (one[3], many[3]) == ("memory", "compute")


@pytest.mark.parametrize("gpus", [1, 2, 8, 256, 4096])
def test_any_number_of_gpus(gpus: int, model: str):
    cfg = rl(model, trainer={"ranks": 16, "parallel": {"expert": 8}})
    laid = timing.laid_out(read_shape(model), cfg, gpus, assumed())
    used = laid.trainer.ranks + laid.rollout.workers * (not laid.rollout.colocated)
    assert used == gpus
    assert laid.rollout.colocated == (gpus < 9)
    assert laid.trainer.ranks % laid.trainer.parallel.expert == 0
    assert timing.rl_step(read_shape(model), laid, laid.stages[0], assumed()).gpus == gpus


def test_the_split_is_the_fastest(model: str):
    cfg, shape, a = rl(model, trainer={"ranks": 4}), read_shape(model), assumed()
    laid = timing.laid_out(shape, cfg, 16, a)
    every = [timing.resized(cfg, n, 16 - n, False) for n in range(1, 16)]
    seconds = [timing.rl_step(shape, c, c.stages[0], a).seconds for c in every]
    assert every[seconds.index(min(seconds))] == laid
    assert laid.step_phi(laid.stages[0]) == pytest.approx(cfg.step_phi(cfg.stages[0]), rel=1e-3)


def test_the_balance_balances(model: str):
    shape, a = read_shape(model), assumed(response=1000)
    stage = {"name": "math", "data": [SOURCE], "steps": 100, "budget": {"phi": 409600}, "max_total_tokens": 1400}
    cfg = rl(model, trainer={"ranks": 8}, rollout={"workers": 8, "concurrent": 8}, stages=[stage])
    ratio = timing.balanced(shape, cfg, cfg.stages[0], a)
    cfg = timing.resized(cfg, 2, round(2 * ratio), False)
    step = timing.rl_step(shape, cfg, cfg.stages[0], a)
    assert step.decoding.seconds == pytest.approx(step.train_s, rel=0.05)


# ---- what does not fit


def test_what_is_advised_fits(model: str):
    shape, trainer, memory = read_shape(model), Trainer(ranks=8, microbatch_tokens=32768), 80e9
    lines = advice.for_rank(shape, trainer, 24576, True, memory)
    assert "a rank needs" in lines[0]
    advised = lines[-1].split("together ")[1].split(" would do")[0].split()
    assert len(advised) > 1
    assert "trainer.recompute=true" in advised
    raw = rl(model).model_dump(mode="json") | {"trainer": trainer.model_dump(mode="json")}
    mended = resolve(RLConfig, raw, advised, "x").trainer
    assert rank_memory(shape, mended, 24576, True).peak + SPARE <= memory
    assert not advice.for_rank(shape, mended, 24576, True, memory)


def test_single_settings_that_are_enough_are_named(model: str):
    trainer = Trainer.model_validate({"ranks": 8, "parallel": {"expert": 8}, "microbatch_tokens": 32768})
    lines = advice.for_rank(read_shape(model), trainer, 8192, False, 80e9)
    assert any(line.startswith("trainer.recompute=true alone would do") for line in lines[1:])
    for line in lines[1:]:
        assert "alone would do" in line


def test_a_worker_that_has_no_room_is_told_to_split_up(model: str):
    assert "rollout.tensor_parallel=2" in advice.for_worker(read_shape(model), Rollout(), 24576, 40e9)[0]
    assert not advice.for_worker(read_shape(model), Rollout(), 24576, 80e9)


def test_a_shared_gpu_is_told_what_is_left(model: str):
    trainer = Trainer.model_validate({"ranks": 8, "parallel": {"expert": 8}})
    args = (read_shape(model), trainer)
    assert "rollout.gpu_memory=0." in advice.for_shared(*args, Rollout(colocated=True), 24576, True, 80e9)[0]
    assert not advice.for_shared(*args, Rollout(colocated=True, gpu_memory=0.3), 24576, True, 80e9)
    assert not advice.for_shared(*args, Rollout(), 24576, True, 80e9)


def test_counting_experts_over_the_batch_costs_a_pass_of_its_own(model: str):
    loss = {"old_logprobs": "sampler"}  # which needs no such pass itself
    passes = {over: items(plan(rl(model, loss={**loss, "balance_over": over}), assumed()))["old log-probs"]
              for over in ("batch", "microbatch", "previous")}  # fmt: skip
    assert passes["batch"] > 0
    assert passes["microbatch"] == passes["previous"] == 0
    late = {"balance_over": "previous"}  # the first update's own pass gives π_old, a later one's is another
    halves = [items(plan(rl(model, updates=n, loss=late), assumed()))["old log-probs"] for n in (1, 2)]
    assert halves == [0, passes["batch"] / 2]


# ---- the command


KINDS: dict[str, dict[str, Any]] = {
    "sft": {"data": SOURCE, "validation": SOURCE},
    "select": {"probe": SOURCE},
    "rl": {"stages": [{"name": "math", "data": [SOURCE], "steps": 100, "budget": {"phi": 4096}}]},
    "eval": {"benchmarks": [{"name": "aime24"}]},
}


def write(folder: Path, model: str, raw: dict[str, Any]) -> str:
    (folder / "my.yaml").write_text(yaml.safe_dump({"run": "r", "model": model, **raw}))
    return str(folder / "my.yaml")


@pytest.mark.parametrize("kind", [*KINDS, "run"])
def test_every_kind_of_configuration_is_known_by_its_keys(kind: str, model: str, tmp_path: Path):
    sections = plan(load_any(write(tmp_path, model, KINDS if kind == "run" else KINDS[kind])), assumed(rows=1000))
    parts = [i.value for s in sections[:-1] for i in s.items if i.name == "GPU hours"]
    assert len(parts) == (4 if kind == "run" else 1)
    assert items(sections)["GPU hours"] == pytest.approx(sum(float(h) for h in parts))
    assert items(sections)["GPU hours"] > 0


def test_the_command_line_and_its_json(model: str, tmp_path: Path):
    done = ringrl("plan", write(tmp_path, model, KINDS), "--rows", "1000", "--json", "--gpu", "h200", "--gpus", "64")
    sections = json.loads(done.text)
    assert {i["source"] for s in sections for i in s["items"]} == {"config", "formula", "datasheet", "assumed"}
    assert next(i["value"] for i in sections[1]["items"]) == 16_801_974_272


def test_rows_that_nobody_knows_are_asked_for(model: str, tmp_path: Path):
    text = as_text(plan(load_any(write(tmp_path, model, KINDS["sft"])), assumed()))
    assert "say how many with --rows" in text


WITH_MODEL = [f for f in sorted((ROOT / "configs").rglob("*.yaml")) if not f.name.startswith("data")]


@pytest.mark.parametrize("file", WITH_MODEL, ids=lambda f: f"{f.parent.name}/{f.name}")
def test_every_configuration_that_ships(file: Path, model: str):
    for gpus in (0, 1, 8):
        assert items(plan(load_any(str(file), (f"model={model}",)), assumed(rows=100), gpus))["GPU hours"] > 0


def test_the_teachers_of_a_chain(model: str, tmp_path: Path):
    teachers = [{"name": "start", "model": model}, {"name": "strong", "model": "x", "server": {"base_url": "http://x"}}]
    raw = {"run": "r", "sources": [{"name": "a", "files": ["a.jsonl"]}], "steps": ["grade", "distil"],
           "grade": {"teachers": teachers, "samples": 4}, "distil": {"teachers": teachers, "samples": 3}}  # fmt: skip
    found = [s for s in plan(resolve(DataConfig, raw, (), "x"), assumed(rows=100)) if " by " in s.title]
    strong = {f"{step} by strong, which http" for step in ("grade", "distil")}  # how many, for there is no GPU of ours
    assert {s.title.partition(":")[0] for s in found} == {"grade by start", "distil by start", *strong}
    assert [i.value for s in found for i in s.items if i.name == "responses"] == [400, 400, 300, 300]
    served = {**raw, "distil": {"teachers": teachers[1:]}, "steps": ["distil"]}
    found = plan(resolve(DataConfig, served, (), "x"), assumed(rows=100))
    assert items(found)["GPU hours"] == 0
    with pytest.raises(ConfigError, match="steps: none of them samples from a model"):
        plan(resolve(DataConfig, {**raw, "steps": ["cleanse"]}, (), "x"), assumed(rows=100))


def test_a_pipeline_plans_the_teachers_of_its_data(model: str, tmp_path: Path):
    teachers = [{"name": "strong", "model": model}]
    data = {
        "sources": [{"name": "a", "files": ["a.jsonl"]}],
        "steps": ["distil", "mix"],
        "distil": {"teachers": teachers},
    }
    sections = plan(load_any(write(tmp_path, model, {**KINDS, "data": data})), assumed(rows=100))
    assert [s.title for s in sections if s.title.startswith("data: distil by strong: its responses")]
    assert sum(i.name == "GPU hours" for s in sections[:-1] for i in s.items) == 5


def test_nothing_heavy_is_loaded(model: str, tmp_path: Path):
    assert not loaded_by("plan", write(tmp_path, model, KINDS))


@pytest.mark.parametrize(
    ("text", "args", "part"),
    [
        ("run: r\n", (), "my.yaml: got keys run, expected one of sft, sources, stages, benchmarks, probe, data"),
        ("run: r\nmodel: m\nprobe: {files: [a]}\n", ("--gpu", "h300"), "--gpu: got 'h300', expected one of a100, h100"),
    ],
)
def test_what_is_wrong_is_one_line(text: str, args: tuple[str, ...], part: str, tmp_path: Path):
    (tmp_path / "my.yaml").write_text(text)
    done = ringrl("plan", tmp_path / "my.yaml", *args)
    assert done.code == 2
    assert part in done.text
    assert done.text.count("\n") == 1


def test_gpus_are_found_by_name():
    assert find_gpu("H100") == GPUS["h100"]
    with pytest.raises(ConfigError):
        find_gpu("h100 sxm")


def test_a_plan_says_what_a_launch_will_say(model: str):
    cfg = rl(model)
    shape = read_shape(model)
    assert items(plan(cfg, assumed()))["peak"] == rank_memory(shape, cfg.trainer, 24576, True).peak
