"""A user's domain in the configuration of every command, and one line for every mistake in it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ringrl.cli import cli
from ringrl.config.commands import EvalConfig, PipelineConfig, RLConfig, SelectConfig, SFTConfig
from ringrl.config.data import DataConfig
from ringrl.config.load import Knobs, dump, resolve
from ringrl.domains import BOXED, BUILT_IN, Domain, Reward
from ringrl.errors import ConfigError, DataError

CHESS = {"verifier": "my_rewards.py:chess", "suffix": "Say a move.", "keys": ["fen"], "required": ["fen"]}
FILES = {"files": ["a.jsonl"], "domain": "chess"}
BUDGET = {"phi": 64}
STAGE = {"name": "s", "data": [FILES], "steps": 1, "prompts": 4, "samples": 2, "max_total_tokens": 32, "budget": BUDGET}
SECTIONS: dict[str, dict[str, Any]] = {
    "data": {"sources": [{"name": "one", **FILES}], "mix": {"outputs": [{"name": "rl", "domains": ["math", "chess"]}]}},
    "sft": {"data": {"files": ["a.jsonl"]}, "validation": {"files": ["a.jsonl"]}},
    "select": {"probe": FILES},
    "rl": {"stages": [STAGE], "prompting": {"suffix": {"chess": "Move!"}}},
    "eval": {"benchmarks": [{"name": "mine", "data": "b.jsonl"}]},
}
KINDS: dict[str, type[Knobs]] = {
    "data": DataConfig, "sft": SFTConfig, "select": SelectConfig, "rl": RLConfig, "eval": EvalConfig,
}  # fmt: skip


def raw(kind: str, **more: Any) -> dict[str, Any]:
    own = {"run": "r"} if kind == "data" else {"run": "r", "model": "m"}
    return copy.deepcopy({**own, **SECTIONS[kind], "domains": {"chess": CHESS}, **more})


def refused(cls: type[Knobs], given: dict[str, Any], *overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        resolve(cls, given, overrides, "my.yaml")
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix("my.yaml: ")


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_knows_the_domain_and_so_does_what_is_written_of_it(kind: str):
    cfg: Any = resolve(KINDS[kind], raw(kind), (), "x")
    assert cfg.known_domains["chess"] == Domain(
        "chess", (Reward("chess", "my_rewards.py:chess"),), "chess", "Say a move.", ("fen",), ("fen",)
    )
    again: Any = resolve(KINDS[kind], yaml.safe_load(dump(cfg)), (), "x")
    assert again == cfg
    assert again.known_domains == cfg.known_domains
    assert list(cfg.known_domains) == [*BUILT_IN, "chess"]


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("sft", "eval")])
def test_without_it_the_name_is_refused_where_it_stands(kind: str):
    places = {"data": "sources.0.domain", "select": "probe.domain", "rl": "stages.0.data.0.domain"}
    names = "math, code, science, reasoning_gym, ches, row"
    line = f"{places[kind]}: got 'chess', expected one of {names}; did you mean 'ches'?"
    assert refused(KINDS[kind], raw(kind, domains={"ches": CHESS})) == line
    assert refused(KINDS[kind], raw(kind, domains={})).startswith(f"{places[kind]}: got 'chess'")


@pytest.mark.parametrize(
    ("kind", "override", "said"),
    [
        ("rl", "prompting.suffix={chss: x}", "prompting.suffix.chss: got 'chss', expected one of math, code, science, "
                                             "reasoning_gym, chess; did you mean 'chess'?"),
        ("rl", "held_out=[{name: h, data: {files: [a], domain: sience}}]", "held_out.0.data.domain: got 'sience'"),
        ("data", "mix.outputs.0.domains.1=cess", "mix.outputs.0.domains.1: got 'cess', expected one of math, code, "
                                                 "science, reasoning_gym, chess; did you mean 'chess'?"),
        ("data", "grade={teachers: [{name: t, model: m}], prompting: {suffix: {x: y}}}", "grade.prompting.suffix.x"),
        ("data", "mix.outputs.0.domains=[math]", "mix.outputs: got none that takes domain chess of source one"),
        ("data", "domains.chess.keys=[source]", "domains.chess: got the key 'source' of a row, expected another"),
        ("data", "domains.chess.required=[lengths]", "domains.chess: got the key 'lengths' of a row"),
        ("eval", "domains.chess.verifyer=x", "domains.chess.verifyer: unknown key, did you mean 'verifier'?"),
    ],
)  # fmt: skip
def test_names_of_domains_and_keys(kind: str, override: str, said: str):
    assert refused(KINDS[kind], raw(kind), override).startswith(said)


TWO = {"right": {"verifier": "r.py:right", "weight": 0.9}, "short": {"verifier": "length", "weight": 0.1}}


@pytest.mark.parametrize(
    ("domains", "said"),
    [
        ({"chess": {}}, "domains.chess.verifier: got neither verifier and rewards, expected one of them"),
        ({"chess": {"verifier": "r.py:a", "rewards": TWO}}, "domains.chess.verifier: got both verifier and rewards"),
        ({"chess": {"rewards": TWO}}, "domains.chess.headline: got '', expected one of rewards right, short"),
        ({"chess": {"rewards": TWO, "headline": "long"}}, "domains.chess.headline: got 'long', expected one of"),
        ({"chess": {"rewards": {"a": TWO["right"]}}}, "domains.chess.rewards: got weights 0.9, expected none below 0"),
        ({"chess": {"rewards": {"a": {"verifier": "r.py:a", "weight": -1}}}}, "domains.chess.rewards.a.weight: got -1"),
        ({"chess": {"rewards": {"a": {}}}}, "domains.chess.rewards.a.verifier: missing"),
        ({"chess": {"rewards": {"a": {"verifier": ""}}}}, "domains.chess.rewards.a.verifier: got ''"),
        ({"chess": {"rewards": TWO, "headline": "right", "options": {"a": 1}}}, "domains.chess.options: got {'a': 1}, "
         "expected none beside rewards, each of which has its own"),
        ({"chess": {"rewards": TWO, "headline": "right", "on_error": "fail"}}, "domains.chess.on_error: got 'fail'"),
        ({"chess": {"verifier": "r.py:a", "headline": "a"}}, "domains.chess.headline: got 'a', expected none with a"),
        ({"chess": {"verifier": "r.py"}}, "domains.chess.verifier: got 'r.py', expected a built-in verifier's name, "
         "module:function or path/file.py:function"),
        ({"chess": {"verifier": "r.py:a.b"}}, "domains.chess.verifier: got 'r.py:a.b', expected a built-in"),
        ({"chess": {"verifier": "a b"}}, "domains.chess.verifier: got 'a b', expected a built-in"),
        ({"chess": {"verifier": "m:f", "on_error": "pass"}}, "domains.chess.on_error: got 'pass', expected"),
        ({"chess": {"verifier": "m:f", "comparison": "answer"}}, "domains.chess.answer: got '', expected the key of"),
        ({"chess": {"verifier": "m:f", "comparison": "words"}}, "domains.chess.comparison: got 'words', expected"),
        ({"math": {"verifier": "m:f"}}, "domains.math: got a domain that is built in, expected another name"),
        ({"row": {"verifier": "m:f"}},  "domains.row: got a domain called 'row', expected letters"),
        ({"a b": {"verifier": "m:f"}},  "domains.a b: got a domain called 'a b', expected"),
        ({"chess": {"rewards": {"a b": {"verifier": "m:f"}}}}, "domains.chess: got a reward called 'a b', expected"),
        ({"chess": "r.py:a"}, "domains.chess: got 'r.py:a', expected"),
        ({"chess": {"verifier": "m:f", "rewads": {}}}, "domains.chess.rewads: unknown key, did you mean 'rewards'?"),
    ],
)  # fmt: skip
def test_bad_domains_are_told_in_a_line(domains: Any, said: str):
    assert refused(EvalConfig, raw("eval", domains=domains)).startswith(said)


def test_several_rewards_and_what_a_single_one_is_called():
    two: Any = resolve(SFTConfig, raw("sft", domains={"c": {"rewards": TWO, "headline": "right"}}), (), "x")
    assert two.known_domains["c"].rewards == (Reward("right", "r.py:right", 0.9), Reward("short", "length", 0.1))
    more = {"options": {"depth": 3}, "on_error": "fail", "key_variable": "KEY"}
    one: Any = resolve(SFTConfig, raw("sft", domains={"c": {"verifier": "pkg.mod:f", **more}}), (), "x")
    assert one.known_domains["c"].rewards == (Reward("c", "pkg.mod:f", 1.0, {"depth": 3}, "fail", "KEY"),)
    named: Any = resolve(SFTConfig, raw("sft", domains={"c": {"rewards": {"a": {"verifier": "math"}}}}), (), "x")
    assert named.known_domains["c"].headline == "a"


def pipeline(**more: Any) -> dict[str, Any]:
    return copy.deepcopy({"run": "r", "model": "m", "domains": {"chess": CHESS}, **SECTIONS, **more})


def test_the_sections_of_a_pipeline_inherit_its_domains():
    cfg = resolve(PipelineConfig, pipeline(), (), "x")
    for name in cfg.sections:
        assert cfg.stage(name, "m").known_domains["chess"] == cfg.known_domains["chess"]
    own = {**SECTIONS["eval"], "domains": {"go": {"verifier": "m:go"}, "chess": {"verifier": "m:chess"}}}
    changed = resolve(PipelineConfig, pipeline(eval=own), (), "x")
    assert list(changed.stage("eval", "m").domains) == ["chess", "go"]
    assert changed.stage("eval", "m").known_domains["chess"].rewards[0].verifier == "m:chess"
    assert list(changed.stage("rl", "m").domains) == ["chess"]
    assert refused(PipelineConfig, pipeline(domains={})).startswith("data: ")
    assert refused(PipelineConfig, pipeline(eval={**own, "domains": 3})).startswith("eval: domains: got 3, expected")


def test_suffixes_of_built_in_domains_stay_in_the_configuration():
    cfg: Any = resolve(RLConfig, raw("rl", prompting={}), (), "x")
    assert list(cfg.prompting.suffix) == ["math", "science", "code"]
    assert cfg.prompting.suffix["math"] == BOXED == BUILT_IN["math"].suffix
    assert cfg.prompting.suffix["code"] == BUILT_IN["code"].suffix


@pytest.mark.parametrize("kind", ["data", "eval", "run"])
def test_a_file_that_is_not_there_is_missed_at_the_start_and_not_before(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    given = pipeline() if kind == "run" else raw(kind)
    Path("my.yaml").write_text(yaml.safe_dump(given))
    assert CliRunner().invoke(cli, [kind, "my.yaml", "--dry-run"]).exit_code == 0
    started = CliRunner().invoke(cli, [kind, "my.yaml"])
    assert isinstance(started.exception, DataError)
    said = "domains.chess.verifier: got my_rewards.py:chess, expected a file that is there"
    assert str(started.exception) == said
    assert [p.name for p in tmp_path.iterdir()] == ["my.yaml"]
