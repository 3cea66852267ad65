"""Every configuration that ships parses; every mistake is one line that names its key; Φ's arithmetic."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from pydantic import ValidationError

from ringrl.cli import cli
from ringrl.commands.table import command_of
from ringrl.config.commands import EvalConfig, PipelineConfig, RLConfig, SelectConfig, SFTConfig
from ringrl.config.data import DataConfig
from ringrl.config.load import Knobs, dump, load, read, resolve
from ringrl.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
BY_NAME = {"sft": SFTConfig, "select": SelectConfig, "rl": RLConfig, "eval": EvalConfig, "run": PipelineConfig,
           "demo": PipelineConfig, "data": DataConfig}  # fmt: skip
BY_KEY = {"validation": SFTConfig, "probe": SelectConfig, "stages": RLConfig, "benchmarks": EvalConfig,
          "sft": PipelineConfig, "sources": DataConfig}  # fmt: skip


def sft(**more: Any) -> dict[str, Any]:
    return {"run": "r", "model": "m", "data": {"files": ["a.jsonl"]}, "validation": {"files": ["b.jsonl"]}, **more}


def rl(stage: dict[str, Any] | None = None, budget: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    one = {"name": "math", "data": [{"files": ["a.jsonl"]}], "steps": 12, "prompts": 12, "samples": 8,
           "max_total_tokens": 101, "budget": {"phi": 1200, **(budget or {})}, **(stage or {})}  # fmt: skip
    return {"run": "r", "model": "m", "stages": [one], **more}


def pipeline(**more: Any) -> dict[str, Any]:
    def section(raw: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in raw.items() if k not in ("run", "model")}

    probe, benchmarks = {"files": ["p.jsonl"]}, [{"name": "aime24"}]
    sections = {
        "sft": section(sft()),
        "select": {"probe": probe},
        "rl": section(rl()),
        "eval": {"benchmarks": benchmarks},
    }
    return {"run": "r", "model": "m", **sections, **more}


def refused(cls: type[Knobs], raw: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        resolve(cls, raw, overrides, "my.yaml")
    message = str(error.value)
    assert "\n" not in message
    return message


# ---- the files that ship


def shipped_class(path: Path) -> type[Knobs]:
    """What the keys say; a name that says something must agree."""
    keys = read(path)
    found = {cls for key, cls in BY_KEY.items() if key in keys}
    assert len(found) == 1, f"{path}: cannot tell which command reads this"
    (cls,) = found
    named = [c for prefix, c in BY_NAME.items() if path.stem.startswith(prefix)]
    assert named in ([], [cls]), f"{path} is named like a {named[0].__name__} and has the keys of a {cls.__name__}"
    return cls


def test_configurations_ship():
    assert len(list(CONFIGS.rglob("*.yaml"))) >= 2


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_shipped_configuration_parses_and_survives_being_written(path: Path):
    cls = shipped_class(path)
    cfg = load(cls, path)
    assert resolve(cls, yaml.safe_load(dump(cfg)), (), "again") == cfg
    assert command_of(cfg).arithmetic(cfg)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_shipped_configuration_resolves_where_nothing_is(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No model, no data, no GPU: a dry run prints what would run, and says in one line what it cannot know."""
    monkeypatch.chdir(tmp_path)
    cls = shipped_class(path)
    result = CliRunner().invoke(cli, [command_of(load(cls, path)).name, str(path), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert resolve(cls, yaml.safe_load(result.output), (), "printed") == load(cls, path)
    missing = re.findall(r"^# (\w+: )?.*no memory estimate", result.output, re.MULTILINE)
    cfg: Any = load(cls, path)
    trained = [f"{s}: " for s in cfg.sections if s not in ("data", "select", "eval")] if cls is PipelineConfig else [""]
    assert missing == (trained if cls in (SFTConfig, RLConfig, PipelineConfig) else [])
    assert list(tmp_path.iterdir()) == []


PAPER = {  # arXiv 2506.14731, §4.1.1 and §4.3.2
    "sft": {"epochs": 3, "batch_examples": 256, "max_tokens": 32768, "optimizer.lr": 3e-4,
            "optimizer.weight_decay": 0.1, "optimizer.schedule": "cosine", "optimizer.warmup": 0.01},
    "select": {"band": (0.3, 0.5)},
    "rl": {"stages.0.prompts": 512, "stages.0.samples": 16, "stages.0.max_total_tokens": 24576,
           "stages.0.budget.phi": 409_600, "stages.1.prompts": 512, "stages.1.samples": 16,
           "stages.1.max_total_tokens": 32768, "stages.1.budget.phi": 409_600, "temperature": 1.0, "optimizer.lr": 3e-6,
           "optimizer.schedule": "constant", "loss.clip_low": 0.2, "loss.clip_high": 0.2, "loss.kl": 1e-3,
           "loss.entropy": 5e-4, "loss.balance": 1e-5, "loss.z": 1e-7},
    "eval": {"temperature": 1.0, "top_p": 0.95, "benchmarks.0.samples": 32, "benchmarks.1.samples": 32},
}  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_numbers_stand_in_its_configurations(name: str):
    pipeline = load(PipelineConfig, CONFIGS / "ring_lite" / "run.yaml")
    for value in (pipeline.stage(name, "m"), load(BY_NAME[name], CONFIGS / "ring_lite" / f"{name}.yaml")):
        for key, expected in PAPER[name].items():
            found: Any = value
            for part in key.split("."):
                found = found[int(part)] if part.isdigit() else getattr(found, part)
            assert found == expected, key


# ---- a file on the base of another


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder / f"{next(iter(files))}.yaml"


def test_a_file_changes_its_base_and_null_removes(tmp_path: Path):
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", base={**rl(seed=4, optimizer={"lr": 1.0, "warmup": 0.5}), "save_every": 7})
    stages = {0: {"budget": {"phi": 600}, "data": {0: {"limit": 9}}}}
    top = {"base": "middle.yaml", "run": "mine", "optimizer": {"warmup": None}, "stages": stages, "save_every": None}
    middle = {"base": "other/base.yaml", "seed": 5, "prompting": {"system": "s"}, "loss": {"kl": 0}}
    cfg = load(RLConfig, write(tmp_path, top=top, middle=middle), ["loss.kl=null"])
    expected = rl({"data": [{"files": ["a.jsonl"], "limit": 9}]}, {"phi": 600}, run="mine", seed=5,
                  optimizer={"lr": 1.0}, prompting={"system": "s"}, loss={})  # fmt: skip
    assert cfg == resolve(RLConfig, expected, (), "x")


def test_a_list_of_the_base_is_replaced_or_changed_by_numbers(tmp_path: Path):
    two = {**rl(), "stages": [*rl()["stages"], {**rl()["stages"][0], "name": "code"}]}
    one = load(RLConfig, write(tmp_path, top={"base": "base.yaml", "stages": {0: None}}, base=two))
    assert [s.name for s in one.stages] == ["code"]
    assert [s.name for s in load(RLConfig, tmp_path / "base.yaml", ["stages.1=null"]).stages] == ["math"]
    new = load(RLConfig, write(tmp_path, top={"base": "base.yaml", "stages": rl({"name": "new"})["stages"]}))
    assert [s.name for s in new.stages] == ["new"]
    message = "top.yaml: stages.2: the base has a list of 2 there, expected a number below that"
    with pytest.raises(ConfigError, match=message):
        load(RLConfig, write(tmp_path, top={"base": "base.yaml", "stages": {2: {"name": "new"}}}))


def test_a_section_of_a_pipeline_may_be_a_commands_own_file(tmp_path: Path):
    sections = {"sft": {"base": "sft.yaml", "run": None, "model": None, "epochs": 2}}
    cfg = load(PipelineConfig, write(tmp_path, run=pipeline(**sections), sft=sft(seed=3) | {"seed": None}))
    assert cfg.stage("sft", "m").epochs == 2
    assert "sft.run: set by the pipeline, remove it" in refused(PipelineConfig, pipeline(sft=sft()))


def test_a_bad_base_is_one_line(tmp_path: Path):
    file = write(tmp_path, top={"base": "gone.yaml"})
    with pytest.raises(ConfigError, match=r"^\S*top\.yaml -> \S*gone\.yaml: no such configuration file$"):
        load(RLConfig, file)
    write(tmp_path, top={"base": "second.yaml"}, second={"base": "top.yaml"})
    with pytest.raises(ConfigError, match=r"top\.yaml -> \S*second\.yaml -> \S*top\.yaml: a file cannot be its own"):
        load(RLConfig, file)


def test_an_override_changes_one_of_two_places_that_share_an_anchor(tmp_path: Path):
    file = write(tmp_path, rl=rl())
    shared = "held_out: [{name: a, data: &data {files: [a.jsonl]}}, {name: b, data: *data}]\n"
    file.write_text(file.read_text() + shared)
    cfg = load(RLConfig, file, ["held_out.0.data.limit=5"])
    assert [h.data.limit for h in cfg.held_out] == [5, 0]


# ---- mistakes


@pytest.mark.parametrize(
    ("cls", "raw", "message"),
    [
        (SFTConfig, sft(epoch=1), "my.yaml: epoch: unknown key, did you mean 'epochs'?"),
        (SFTConfig, sft(optimizer={"lr": 1, "betta": 2}), "optimizer.betta: unknown key, did you mean 'betas'?"),
        (SFTConfig, sft(data={"files": ["a"], "colums": {}}), "data.colums: unknown key, did you mean 'columns'?"),
        (RLConfig, rl({"stepss": 3}), "stages.0.stepss: unknown key, did you mean 'steps'?"),
        (RLConfig, rl(None, {"fi": 3, "scop": "x"}), "stages.0.budget.fi: unknown key"),
        (RLConfig, rl(None, {"scop": "rank"}), "stages.0.budget.scop: unknown key, did you mean 'scope'?"),
        (
            RLConfig,
            rl({"data": [{"files": ["a"]}, {"files": ["a"], "limitt": 1}]}),
            "stages.0.data.1.limitt: unknown key, did you mean 'limit'?",
        ),
        (RLConfig, rl(rollout={"worker": 2}), "rollout.worker: unknown key, did you mean 'workers'?"),
        (
            RLConfig,
            rl(held_out=[{"name": "x", "data": {"files": ["a"], "splitt": "t"}}]),
            "held_out.0.data.splitt: unknown key, did you mean 'split'?",
        ),
        (
            EvalConfig,
            {"run": "r", "model": "m", "benchmarks": [{"name": "x", "sample": 1}]},
            "benchmarks.0.sample: unknown key, did you mean 'samples'?",
        ),
        (PipelineConfig, pipeline(sfft={}), "my.yaml: sfft: unknown key, did you mean 'sft'?"),
        (PipelineConfig, pipeline(rl={"stages": rl({"stepss": 1})["stages"]}),
         "rl: stages.0.stepss: unknown key, did you mean 'steps'?"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_named_with_the_nearest_known_one(cls: type[Knobs], raw: dict[str, Any], message: str):
    assert message in refused(cls, raw)


def test_a_key_like_no_other_gets_no_suggestion():
    assert refused(SFTConfig, sft(zzzz=1)).endswith("zzzz: unknown key")


@pytest.mark.parametrize(
    ("cls", "raw", "parts"),
    [
        (SFTConfig, sft(epochs="many"), ["epochs: got 'many', expected:", "integer"]),
        (SFTConfig, sft(epochs=0), ["epochs: got 0, expected:", "greater than or equal to 1"]),
        (SFTConfig, sft(optimizer={"lr": -1}), ["optimizer.lr: got -1", "greater than 0"]),
        (SFTConfig, sft(optimizer={}), ["optimizer.lr: missing"]),
        (SFTConfig, {k: v for k, v in sft().items() if k != "model"}, ["my.yaml: model: missing"]),
        (SFTConfig, sft(data={"files": []}), ["data.files: got []"]),
        (
            SFTConfig,
            sft(data={"files": ["a"], "domain": "art"}),
            ["data.domain: got 'art', expected one of math, code, science, reasoning_gym, row"],
        ),
        (SFTConfig, sft(trainer={"parallel": {"zero": 4}}), ["trainer.parallel.zero: got 4"]),
        (SFTConfig, sft(prompting={"system": "a\nb", "max_tokens": "a\nb"}), ["prompting.max_tokens: got 'a\\nb'"]),
        (RLConfig, rl({"samples": 1}), ["stages.0.samples: got 1"]),
        (RLConfig, rl(stages=[]), ["stages: got []"]),
        (RLConfig, rl(loss={"method": "ppo"}), ["loss.method: got 'ppo'", "'c3po'", "'grpo'"]),
        (
            SelectConfig,
            {"run": "r", "model": "m", "probe": {"files": ["a"]}, "band": [0.5, 0.5]},
            ["band: lower end 0.5"],
        ),
        (PipelineConfig, pipeline(sft=sft()), ["sft.run: set by the pipeline, remove it"]),
    ],
)
def test_a_bad_value_is_one_line_with_key_value_and_what_is_expected(
    cls: type[Knobs], raw: dict[str, Any], parts: list[str]
):
    message = refused(cls, raw)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"a: [1,\nb: 2", ":2: not YAML: while parsing a flow sequence"),
        (b"a: b: c", ":1: not YAML: mapping values are not allowed here"),
        (b"- 1\n- 2\n", ": got list, expected a mapping"),
        (b"", ": got NoneType"),
        (b"run: caf\xe9s", ": not UTF-8: invalid continuation byte at byte 8"),
        (b"run: a\0b", ": not YAML: unacceptable character #x0000"),
        (b"a: *b", ":1: found undefined alias 'b'"),
        (b"run: r\nmodel: m\nrun: s\n", ":3: run: written twice, first in line 1, expected each key once"),
        (b"data:\n  files: [a]\n  limit: 1\n  files: [b]\n", ":4: files: written twice, first in line 2"),
        (b"optimizer: {lr: 1, betas: [0, 0], lr: 2}", ":1: lr: written twice, first in line 1"),
        (b"a: &a {x: 1}\nb:\n  <<: *a\n  c: 2\n  <<: *a", ":5: <<: written twice, first in line 3"),
        (b"a: " + b"[" * 5000, ": values are nested too deeply"),
    ],
)
def test_a_file_that_is_no_mapping_is_one_line(tmp_path: Path, text: bytes, what: str):
    (tmp_path / "bad.yaml").write_bytes(text)
    with pytest.raises(ConfigError) as error:
        load(SFTConfig, tmp_path / "bad.yaml")
    assert str(error.value).startswith(f"{tmp_path / 'bad.yaml'}{what}")
    assert "\n" not in str(error.value)


def test_keys_of_a_mapping_that_is_merged_may_be_there_again(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(
        "run: r\nmodel: m\ndata: &data {files: [a], limit: 5}\nvalidation:\n  <<: *data\n  limit: 6\n"
    )
    cfg = load(SFTConfig, tmp_path / "a.yaml")
    assert cfg.validation
    assert (cfg.data.limit, cfg.validation.limit, cfg.validation.files) == (5, 6, ("a",))


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(sft()), encoding="utf-8-sig")
    assert load(SFTConfig, tmp_path / "a.yaml").run == "r"


def test_what_is_named_twice_is_refused():
    stage = rl()["stages"][0]
    held = {"name": "a", "data": {"files": ["a"]}}
    assert "stages: got math, math, expected each name once" in refused(RLConfig, rl(stages=[stage, stage]))
    assert "held_out: got a, a, expected each name once" in refused(RLConfig, rl(held_out=[held, held]))
    twice = {"run": "r", "model": "m", "benchmarks": [{"name": "x", "data": "a"}, {"name": "x", "data": "b"}]}
    assert "benchmarks: got x, x, expected each name once" in refused(EvalConfig, twice)
    section = {"stages": [stage, stage]}
    assert "rl: stages: got math, math, expected" in refused(PipelineConfig, pipeline(rl=section))
    for name in ("sft", "general"):
        taken = {"stages": [{**stage, "name": name}]}
        assert f"rl.stages.0.name: got {name}, expected another" in refused(PipelineConfig, pipeline(rl=taken))


CASES = CONFIGS.parents[1] / "shared" / "cases" / "users"


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the project's shared cases")
def test_cases_of_users():
    with pytest.raises(ConfigError, match="rl: stages: got math, math, expected each name once"):
        load(PipelineConfig, CASES / "duplicate_stage_names.yaml")


def test_validation_may_be_left_out():
    raw = {k: v for k, v in sft().items() if k != "validation"}
    assert resolve(SFTConfig, raw, (), "x").sources == (resolve(SFTConfig, sft(), (), "x").data,)
    assert "validation.colums: unknown key, did you mean 'columns'?" in refused(
        SFTConfig, sft(validation={"files": ["a"], "colums": {}})
    )


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.yaml: no such configuration file"):
        load(SFTConfig, tmp_path / "none.yaml")


# ---- overrides


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("seed=7", lambda c: c.seed == 7),
        ("optimizer.lr=3e-6", lambda c: c.optimizer.lr == 3e-6),
        ("optimizer={lr: 0.5, betas: [0.8, 0.9]}", lambda c: c.optimizer.betas == (0.8, 0.9)),
        ("trainer.packing=false", lambda c: c.trainer.packing is False),
        ("stages.0.budget.phi=600", lambda c: c.stages[0].budget.phi == 600),
        ("stages.0.data.0.files=[x.jsonl, y.jsonl]", lambda c: c.stages[0].data[0].files == ("x.jsonl", "y.jsonl")),
        ("stages.0.data.0.columns.problem=question", lambda c: c.stages[0].data[0].columns == {"problem": "question"}),
        ("prompting.system=a=b", lambda c: c.prompting.system == "a=b"),
        ("prompting.system=''", lambda c: c.prompting.system == ""),
        ("prompting.suffix={}", lambda c: c.prompting.suffix == {}),
    ],
)
def test_an_override_is_a_path_and_a_yaml_value(override: str, read: Any):
    raw = rl(optimizer={"lr": 1.0})
    assert not read(resolve(RLConfig, rl(optimizer={"lr": 1.0}, prompting={"system": "no"}), (), "x"))
    assert read(resolve(RLConfig, raw, (override,), "x"))


def test_the_last_override_wins():
    assert resolve(SFTConfig, sft(), ("seed=1", "seed=2"), "x").seed == 2


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("seed", "override 'seed': expected key.sub=value"),
        ("seed=", "seed: got None"),
        ("stages.1=null", "the configuration has no 'stages.1'"),
        ("stages.5.steps=1", "the configuration has no 'stages.5.steps'"),
        ("stages.first.steps=1", "the configuration has no 'stages.first.steps'"),
        ("run.name=1", "the configuration has no 'run.name'"),
        ("seed=[1", "override 'seed=[1':1: not YAML: while parsing a flow sequence expected"),
        ("optimizer={lr: 1, lr: 2}", "lr: written twice, first in line 1, expected each key once"),
        ("optimizer.lr=.inf", "optimizer.lr: got inf, expected: input should be a finite number"),
        ("optimizer.lr=1e999", "optimizer.lr: got '1e999', expected: input should be a finite number"),
        ("temperature=.nan", "temperature: got nan, expected: input should be a finite number"),
        ("optimizer.lr=-1e-5", "optimizer.lr: got '-1e-5', expected: input should be greater than 0"),
        ("loss.kl=-.inf", "loss.kl: got -inf, expected: input should be"),
        ("optimizer.betas=[0.9, 1.5]", "optimizer.betas.1: got 1.5, expected: input should be less than 1"),
        ("optimizer.betas=[-0.1, 0.9]", "optimizer.betas.0: got -0.1, expected: input should be greater than or equal"),
        ("optimizer.betas=[0.9]", "optimizer.betas.1: missing"),
        ("stages=[]", "stages: got [], expected at least 1"),
        ("stages.0.data.0.files=[]", "stages.0.data.0.files: got [], expected at least 1"),
        ("stages.0.name=../up", "stages.0.name: got '../up', expected: string should match"),
        (
            "stages.0.data.0.split=train[5",
            "stages.0.data.0.split: got 'train[5', expected a split such as train,",
        ),
        ("stages.0.data.0.split=train[:x]", "split: got 'train[:x]', expected a split such as"),
        ("stages.0.data.0.format=chatml", "stages.0.data.0.format: got 'chatml', expected: input should be 'messages'"),
        ("stages.0.stepz=1", "stages.0.stepz: unknown key, did you mean 'steps'?"),
        ("optimizer.lr=fast", "optimizer.lr: got 'fast'"),
    ],
)
def test_a_bad_override_is_one_line(override: str, what: str):
    assert what in refused(RLConfig, rl(optimizer={"lr": 1.0}), override)


# ---- Φ, ranks, and what follows from them

MOST = 12 * 8 * 100  # prompts x samples x response tokens of `rl()`


@pytest.mark.parametrize(
    ("scope", "ranks", "updates", "step_phi", "update_phi", "parts"),
    [
        ("step", 1, 1, 1200, 1200, 1),
        ("step", 4, 3, 1200, 400, 3),
        ("rank", 4, 1, 4800, 4800, 4),
        ("rank", 4, 2, 4800, 2400, 8),
        ("minibatch", 4, 3, 3600, 1200, 3),
    ],
)
def test_what_phi_counts_in_every_scope(
    scope: str, ranks: int, updates: int, step_phi: int, update_phi: int, parts: int
):
    cfg = resolve(RLConfig, rl(None, {"scope": scope}, trainer={"ranks": ranks}, updates=updates), (), "x")
    (stage,) = cfg.stages
    assert (cfg.step_phi(stage), cfg.update_phi(stage), cfg.parts(stage)) == (step_phi, update_phi, parts)
    assert cfg.step_phi(stage) % cfg.parts(stage) == 0
    assert any(f"Φ = {update_phi:,} tokens per optimizer step" in line for line in command_of(cfg).arithmetic(cfg))


def test_phi_may_be_all_that_can_be_sampled_and_not_a_token_more():
    assert resolve(RLConfig, rl(None, {"phi": MOST}), (), "x").stages[0].budget.phi == MOST
    assert f"stages.0.budget.phi: got {MOST + 1}" in refused(RLConfig, rl(None, {"phi": MOST + 1}))
    assert f"expected at most {MOST}" in refused(
        RLConfig, rl(None, {"phi": MOST // 2, "scope": "rank"}, trainer={"ranks": 3})
    )


def test_grpo_has_no_budget_to_be_too_large():
    assert resolve(RLConfig, rl(None, {"phi": 10 * MOST}, loss={"method": "grpo"}), (), "x").loss.method == "grpo"


def test_phi_must_divide_into_its_parts():
    assert "budget.phi: got 1201, expected a multiple of 3" in refused(RLConfig, rl(None, {"phi": 1201}, updates=3))


@pytest.mark.parametrize("key", ["prompts", "steps"])
def test_updates_must_divide_prompts_and_steps(key: str):
    raw = rl({key: 10}, {"phi": 400}, updates=4)
    assert f"stages.0.{key}: got 10, expected a multiple of updates=4" in refused(RLConfig, raw)


def test_more_ranks_than_sequences_are_refused():
    assert "trainer.ranks: got 9, expected at most 8" in refused(SFTConfig, sft(batch_examples=8, trainer={"ranks": 9}))
    assert resolve(SFTConfig, sft(batch_examples=8, trainer={"ranks": 8}), (), "x").trainer.ranks == 8
    assert "trainer.ranks: got 97, expected at most 96" in refused(RLConfig, rl(trainer={"ranks": 97}))
    assert "expected at most 32 (stages.0" in refused(RLConfig, rl(trainer={"ranks": 33}, updates=3))


def test_steps_are_the_sum_over_stages():
    raw = rl()
    two = [*raw["stages"], {**raw["stages"][0], "name": "code", "steps": 5}]
    assert resolve(RLConfig, {**raw, "stages": two}, (), "x").steps == 17


def test_a_configuration_cannot_be_changed():
    cfg = resolve(RLConfig, rl(), (), "x")
    for knobs, key in ((cfg, "seed"), (cfg.stages[0], "steps"), (cfg.stages[0].budget, "phi")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(knobs, key, 1)


def test_the_pipeline_hands_each_stage_its_run_model_and_seed():
    cfg = resolve(PipelineConfig, pipeline(seed=5), (), "x")
    stage = cfg.stage("rl", "chosen/checkpoint", "rl-1")
    assert isinstance(stage, RLConfig)
    assert (stage.run, stage.model, stage.seed) == ("r/rl-1", "chosen/checkpoint", 5)


def test_a_pipeline_may_begin_with_data():
    data = {"sources": [{"name": "pile", "files": ["p.jsonl"]}], "steps": ["mix"]}
    cfg = resolve(PipelineConfig, pipeline(data=data, seed=5), (), "x")
    assert cfg.sections == ("data", "sft", "select", "rl", "eval")
    stage = cfg.stage("data", "m")
    assert isinstance(stage, DataConfig)
    assert (stage.run, stage.seed, stage.steps) == ("r/data", 5, ("mix",))
    assert "data: read -> mix, " in command_of(cfg).arithmetic(cfg)[0]
    assert "data.seed: set by the pipeline, remove it" in refused(PipelineConfig, pipeline(data={**data, "seed": 1}))
    assert "data: model: unknown key" in refused(PipelineConfig, pipeline(data={**data, "model": "m"}))
    message = refused(PipelineConfig, pipeline(data={**data, "mix": {"outputs": [{"name": "a", "domains": ["art"]}]}}))
    assert "data: mix.outputs.0.domains.0: got 'art', expected" in message


def test_a_pipeline_may_end_with_general_sft():
    general = {"data": {"files": ["g.jsonl"]}, "validation": {"files": ["v.jsonl"]}, "epochs": 2}
    cfg = resolve(PipelineConfig, pipeline(general=general), (), "x")
    assert cfg.sections == ("sft", "select", "rl", "general", "eval")
    assert cfg.stage("general", "m").epochs == 2
    assert [line for line in command_of(cfg).arithmetic(cfg) if line.startswith("general: step: 256 examples")]
    assert resolve(PipelineConfig, pipeline(), (), "x").sections == ("sft", "select", "rl", "eval")
    message = refused(PipelineConfig, pipeline(general={**general, "epoch": 1}))
    assert "general: epoch: unknown key, did you mean 'epochs'?" in message


# ---- settings that contradict each other


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ({"loss": {"denominator": "responses"}}, ["loss.denominator: got responses, expected phi with method c3po"]),
        ({"loss": {"method": "grpo", "denominator": "phi"}}, ["loss.weight: got response, expected token"]),
        ({"loss": {"method": "dapo", "kl": 0.1}}, ["loss.kl: got 0.1, expected 0 with reference none"]),
        ({"loss": {"reference": "none"}}, ["loss.kl: got 0.001, expected 0 with reference none"]),
        ({"loss": {"kl": 0, "reference_every": 4}}, ["loss.reference_every: got 4, expected 0 with kl 0"]),
        ({"loss": {"reference_every": 3}, "updates": 2},
         ["loss.reference_every: got 3, expected a multiple of updates=2"]),
        ({"loss": {"ratio": "none"}}, ["loss.clip: got ppo, expected none with ratio none"]),
        ({"loss": {"method": "rloo", "old_logprobs": "sampler"}}, ["loss.old_logprobs: got sampler, expected trainer"]),
        ({"loss": {"method": "rloo"}, "updates": 2}, ["updates: got 2, expected 1 with loss.ratio none"]),
        ({"loss": {"method": "gspo", "correction": {"method": "icepop"}}},
         ["loss.correction.method: got icepop, expected sequence_mis or geometric with ratio sequence"]),
        ({"loss": {"correction": {"method": "tis"}, "old_logprobs": "sampler"}},
         ["loss.correction.method: got tis, expected none with old_logprobs sampler"]),
        ({"loss": {"correction": {"method": "icepop", "low": 6}}},
         ["loss.correction.low: got 6.0, expected less than high=5"]),
        ({"loss": {"correction": {"method": "tis", "low": 0.5}}},
         ["loss.correction.low: got 0.5, expected 0 with method tis"]),
        ({"loss": {"entropy_target": 0.2}}, ["loss.entropy_step: got 0, expected above 0"]),
        ({"loss": {"entropy_step": 0.1}}, ["loss.entropy_target: got 0, expected above 0"]),
        ({"loss": {"router_replay": "engine"}, "rollout": {"engine": "transformers"}},
         ["loss.router_replay: got engine, expected trainer"]),
        ({"top_p": 0.9}, ["my.yaml: top_p: got 0.9, expected no such key in training", "log-probs"]),
        ({"rollout": {"top_k": 5}}, ["my.yaml: rollout.top_k: got 5, expected no such key in training"]),
    ],
    ids=str,
)  # fmt: skip
def test_contradictory_settings_are_refused_with_what_to_change(more: dict[str, Any], parts: list[str]):
    message = refused(RLConfig, rl(**more))
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("budget", "more", "part"),
    [
        ({"order": "informative", "scope": "rank"}, {}, "stages.0.budget.scope: got rank, expected step or minibatch"),
        ({"order": "informative", "cut": "overshoot"}, {}, "stages.0.budget.cut: got overshoot, expected exact"),
        ({"keep": [0, 1]}, {}, "stages.0.budget.keep: got [0.0, 1.0], expected two shares"),
        ({"order": "informative"}, {"loss": {"ratio": "sequence"}}, "stages.0.budget.order: got informative"),
        ({"retention": 2}, {"loss": {"method": "dapo"}}, "stages.0.budget.retention: got 2, expected 0"),
        ({"order": "length_balanced"}, {"loss": {"method": "dapo"}}, "stages.0.budget.order: got length_balanced"),
    ],
)
def test_a_budget_that_contradicts_itself_or_the_loss_is_refused(
    budget: dict[str, Any], more: dict[str, Any], part: str
):
    assert part in refused(RLConfig, rl(None, budget, **more))


def test_evaluation_may_truncate_the_distribution():
    raw = {"run": "r", "model": "m", "benchmarks": [{"name": "aime24"}], "top_p": 0.9}
    assert resolve(EvalConfig, raw, (), "x").top_p == 0.9


# ---- what follows from the numbers


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"max_staleness": 1}, "max_staleness: got 1, expected 0 with loss.old_logprobs trainer and "
                               "loss.correction.method none"),
        ({"max_staleness": 2, "loss": {"old_logprobs": "sampler"}},
         "max_staleness: got 2, expected at most 1 without rollout.in_flight"),
        ({"rollout": {"in_flight": True}}, "rollout.in_flight: got true, expected false with max_staleness 0"),
        ({"max_staleness": 1, "loss": {"correction": {"method": "tis"}}, "rollout": {"colocated": True}},
         "max_staleness: got 1, expected 0 with rollout.colocated"),
        ({"max_staleness": 1, "loss": {"old_logprobs": "sampler"},
          "rollout": {"in_flight": True, "engine": "transformers"}}, "expected false with rollout.engine transformers"),
        ({"max_staleness": 1, "loss": {"old_logprobs": "sampler", "router_replay": "engine"},
          "rollout": {"in_flight": True}},
         "rollout.in_flight: got true, expected false with loss.router_replay engine"),
        ({"keep_best": 2}, "keep_best: got 2, expected 0 with keep_last 0"),
        ({"rollout": {"addresses": ["a:1"]}}, "rollout.key_file: got '', expected one exactly when"),
        ({"rollout": {"addresses": ["a:1"], "key_file": "k", "colocated": True}},
         "rollout.colocated: got true, expected false with addresses"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(more: dict[str, Any], message: str):
    assert message in refused(RLConfig, rl(**more))


def test_sampling_ahead_with_what_corrects_for_it_is_accepted():
    for loss in ({"old_logprobs": "sampler"}, {"correction": {"method": "tis"}}):
        assert resolve(RLConfig, rl(max_staleness=1, loss=loss), (), "x").max_staleness == 1


def test_only_zero_3_offloads_parameters():
    message = refused(RLConfig, rl(trainer={"parallel": {"zero": 2, "offload": "parameters"}}))
    assert "trainer.parallel.offload: got parameters, expected none or optimizer with parallel.zero 2" in message


def test_zero_0_is_refused():
    assert "trainer.parallel.zero: got 0" in refused(RLConfig, rl(trainer={"parallel": {"zero": 0}}))


def test_experts_are_shared_out_evenly_or_not_at_all():
    message = refused(RLConfig, rl(trainer={"ranks": 4, "parallel": {"expert": 3}}))
    assert "trainer.parallel.expert: got 3, expected a divisor of ranks=4" in message


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sources.0.remove=['(']", "my.yaml: sources.0.remove.0: got '(', expected a regular expression: "),
        ("steps=[cleanse, cleanse]", "my.yaml: steps: got cleanse, cleanse, expected each name once"),
        ("mix.outputs=[{name: a}, {name: a}]", "my.yaml: mix.outputs: got a, a, expected each name once"),
        ("mix.outputs=[{name: a, caps: {b: 3}}]", "my.yaml: mix.outputs.0.caps.b: expected one of sources one"),
        ("steps=[grade]", "my.yaml: grade.teachers: got none, expected at least the model that RL starts from"),
    ],
)
def test_mistakes_of_a_chain_name_their_key(override: str, said: str):
    assert refused(DataConfig, {"run": "r", "sources": [{"name": "one", "files": ["a.jsonl"]}]}, override).startswith(
        said
    )


@pytest.mark.parametrize(("key", "value"), [
    ("server.base_url", "https://user:hunter2@host/v1"),
    ("server.base_url", "user:hunter2@host/v1"),
    ("server.base_url", "http://host/v1?api_key=hunter2"),
    ("server.key_variable", "sk-proj-hunter2hunter2"),
    ("verify.remote", "http://hunter2@host"),
    ("benchmarks.0.data", "https://user:hunter2@host/rows.jsonl"),
])  # fmt: skip
def test_a_credential_is_refused_without_saying_it(key: str, value: str) -> None:
    raw = {"run": "r", "model": "m", "benchmarks": [{"name": "aime24"}], "server": {}, "verify": {}}
    with pytest.raises(ConfigError, match=rf"command line: {re.escape(key)}: got .* `key_variable` names") as error:
        resolve(EvalConfig, raw, [f"{key}={value}"], "command line")
    assert "hunter2" not in str(error.value)


def test_a_prompt_may_speak_of_urls_with_users() -> None:
    raw = {"run": "r", "model": "m", "benchmarks": [{"name": "aime24"}]}
    cfg = resolve(EvalConfig, raw, ["prompting.system='Parse https://user:pass@host/ into parts'"], "command line")
    assert "user:pass" in cfg.prompting.system
