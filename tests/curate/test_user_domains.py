"""A user's domain goes through every step by what it says of itself, and loses no key that its verifier may want."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ringrl.config.data import DataConfig, Decontaminate, Distil, Pile
from ringrl.config.load import check
from ringrl.config.sections import Source, Verify
from ringrl.curate import cleanse, deduplicate, known, mix, outputs
from ringrl.curate.annotate import question
from ringrl.curate.chain import phases, sampled
from ringrl.curate.distil import Filter
from ringrl.curate.grade import Grader
from ringrl.curate.read import MALFORMED, read_row
from ringrl.curate.shards import Dropped, Row, Shards
from ringrl.curate.verdicts import Verdicts
from ringrl.data.source import messages_of, read_problems

DOMAINS = {
    "chess": {"verifier": "my_rewards.py:chess", "suffix": "Say a move.", "required": ["fen"], "answer": "best"},
    "go": {"verifier": "my_rewards.py:go", "keys": ["board", "solutions"]},
    "physics": {"verifier": "math", "answer": "value", "required": ["value"], "comparison": "answer"},
    "rust": {"verifier": "my_rewards.py:rust", "comparison": "program"},
}


def config(run: Path, **more: Any) -> DataConfig:
    raw = {"run": str(run), "sources": [{"name": "s", "files": ["x.jsonl"]}], "domains": DOMAINS, **more}
    return check(DataConfig, raw, "test")


KNOWN = config(Path("r")).known_domains


def row(n: int, domain: str = "chess", problem: str = "Mate in one. What is the move?", **more: Any) -> Row:
    own: Row = {"chess": {"fen": "8/8", "best": "Qh5"}, "physics": {"value": "3 m/s"}}.get(domain, {})
    return {"id": f"s/{n}", "source": "s", "where": f"f:{n}", "domain": domain, "problem": problem, **own, **more}


def over(name: str, function: Callable[[Any], Any], items: Sequence[Any], in_process: bool = False) -> Iterator[Any]:
    return ((item, function(item)) for item in items)


def read(raw: Row, **more: Any) -> Row | Dropped:
    return read_row(Pile(name="s", files=("f",), **more), KNOWN, 0, "f:0", raw)


def test_rows_are_read_as_they_stand():
    raw = {"domain": "chess", "problem": " Mate? ", "fen": "8/8", "answer": 5, "best": "a #### b",
           "solutions": {"a": 1}, "notes": [None, {"deep": 1.5}]}  # fmt: skip
    said = read(raw)
    assert said == {**raw, "id": "s/0", "source": "s", "where": "f:0", "problem": "Mate?"}
    assert read({**raw, "domain": "go"}, domain="chess") == said
    wrong = read({**raw, "domain": "ches"})
    assert isinstance(wrong, Dropped)
    assert wrong.reason == MALFORMED
    assert wrong.more["detail"].endswith("go, physics, rust; did you mean 'chess'?")


def test_the_forms_of_answers_and_tests_follow_the_comparison():
    physics = read({"domain": "physics", "problem": "p", "value": "so #### 3", "answer": "a #### b"})
    assert isinstance(physics, dict)
    assert (physics["value"], physics["answer"]) == ("3", "a #### b")
    rust = read({"domain": "rust", "problem": "p", "tests": {"input": ["1"], "output": ["2"]}, "solutions": "fn main"})
    assert isinstance(rust, dict)
    assert rust["tests"] == [{"input": "1", "output": "2"}]
    assert rust["solutions"] == ["fn main"]


def cleansed(*rows: Row, **how: Any) -> list[Row | Dropped]:
    step = cleanse.prepare(config(Path("r"), cleanse=how), Shards(Path("a")), Shards(Path("b")), over)
    return list(step(0, rows))


def test_what_is_a_fault_in_math_is_none_in_a_domain_that_compares_no_such_answers():
    problems = ["Is it mate?", "Prove that it is mate.", "(a) Is it mate? (b) Is it draw?",
                "Which? (A) Qh5 (B) Qh4 (C) Qh3"]  # fmt: skip
    rows = [row(n, domain, p) for n, p in enumerate(problems) for domain in ("chess", "go")]
    assert cleansed(*rows) == rows
    answers = ("yes", "3", "3", "3")
    math = cleansed(*(row(n, "physics", p, value=answers[n]) for n, p in enumerate(problems)))
    assert [r.reason for r in math if isinstance(r, Dropped)] == [
        cleanse.YES_NO, cleanse.PROOF, cleanse.PARTS, cleanse.CHOICE]  # fmt: skip


def test_what_is_required_is_looked_for():
    rows = [row(0), row(1, fen=""), row(2, fen=None), row(3, "go"), row(4, "physics"), row(5, "physics", value="")]
    gone = [r for r in cleansed(*rows) if isinstance(r, Dropped)]
    assert [(r.row["id"], r.reason) for r in gone] == [(f"s/{n}", cleanse.NO_ANSWER) for n in (1, 2, 5)]
    assert gone[0].more["detail"] == "no fen"
    assert cleansed(*rows, answers="checked") == rows
    [broken] = cleansed(row(0, problem="Mate \ufffd?"))
    assert isinstance(broken, Dropped)


def deduplicated(folder: Path, *rows: Row) -> list[str]:
    before, after = Shards(folder / "before"), Shards(folder / "after")
    before.write(0, "read", rows)
    step = deduplicate.prepare(config(folder), before, after, over)
    return [f"{r.reason} {r.more['twin']}" if isinstance(r, Dropped) else "" for r in step(0, before.rows(0))]


def test_same_answers_are_equal_values_of_the_key_that_the_domain_names(tmp_path: Path):
    exact, other = "exact duplicate", "another answer to the same problem"
    same = [row(0), row(1), row(2, fen="")]
    assert deduplicated(tmp_path / "1", *same) == ["", f"{exact} s/0", f"{exact} s/0"]
    differ = [row(0, best="1/2"), row(1, best="0.5")]
    assert deduplicated(tmp_path / "2", *differ) == [f"{other} s/1", f"{other} s/0"]
    lists = [row(0, best=["a", {"b": 1}]), row(1, best=["a", {"b": 1}]), row(2, best=["a"]), row(3, best=None)]
    assert deduplicated(tmp_path / "3", *lists) == ["", f"{exact} s/0", f"{other} s/0", f"{exact} s/0"]
    read_alike = [row(0, "physics", value="1/2"), row(1, "physics", value="0.5")]
    assert deduplicated(tmp_path / "4", *read_alike) == ["", f"{exact} s/0"]


def test_domains_of_their_own_are_apart_and_those_with_answers_or_programs_are_not(tmp_path: Path):
    kinds = [row(0), row(1, "go"), row(2, "math", answer="3"), row(3, "code", tests=[{"input": "", "output": "3"}])]
    assert deduplicated(tmp_path / "1", *kinds) == [""] * 4
    long = "Every morning the baker fills the shelves with fresh bread. What is left of it when the shop closes{}"
    near = [row(n, d, long.format(end)) for n, (d, end) in enumerate((("chess", "?"), ("go", " then?")))]
    assert deduplicated(tmp_path / "2", *near) == ["", ""]
    near[1]["domain"] = "chess"
    assert deduplicated(tmp_path / "3", *near) == ["", "near duplicate s/0"]
    alike = [row(0, "math", answer="3"), row(1, "physics", value="3")]
    assert deduplicated(tmp_path / "4", *alike) == ["", "exact duplicate s/0"]


def answers(*rewards: float | None) -> tuple[list[Row], list[tuple[str, str, float]]]:
    """As sampled, and as judged; None is an error."""
    said = [{"text": "\\boxed{Qh5}", "length": 3, "finish": "stop"} for _ in rewards]
    return said, [("error", "", 0.0) if r is None else ("pass" if r == 1 else "fail", "", r) for r in rewards]


@pytest.mark.parametrize(
    ("rewards", "rate", "bin_"), [((0.5, 0.25, 1.0, None), 1.75 / 3, 5), ((0.9, 0.9), 0.9, 9), ((0.05, 0.0), 0.025, 0)]
)
def test_a_pass_rate_is_the_mean_reward(rewards: tuple[float | None, ...], rate: float, bin_: int):
    said, verdicts = answers(*rewards)
    step = Grader(Verdicts(Shards(Path("nowhere")), ("t",), Verify(), KNOWN), 10)
    graded = step.grade(row(0), {"t": said}, {"t": verdicts})
    assert isinstance(graded, dict)
    assert (graded["pass_rate"], graded["bin"]) == (pytest.approx(rate), bin_)
    assert "agreement" not in graded
    said, verdicts = answers(1.0, 0.0)
    votes = step.grade(row(0, "physics"), {"t": said}, {"t": verdicts})
    assert isinstance(votes, dict)
    assert votes["agreement"] == {"t": 0.5}


def test_what_is_not_wholly_right_is_no_example_to_learn_from():
    said, verdicts = answers(0.9, 1.0)
    step = Filter(Verdicts(Shards(Path("nowhere")), ("t",), Verify(), KNOWN), Distil())
    responses = [({**s, "text": f"{s['text']} {n}", "teacher": "t"}, v)
                 for n, (s, v) in enumerate(zip(said, verdicts, strict=True))]  # fmt: skip
    dropped, kept = step.filtered(row(0), responses)
    assert isinstance(dropped, Dropped)
    assert dropped.reason == "wrong"
    assert isinstance(kept, dict)
    assert [r["text"] for r in kept["responses"]] == ["\\boxed{Qh5} 1"]
    assert kept["fen"] == "8/8"


def test_who_labels_a_problem_is_not_asked_to_solve_it():
    cfg = config(Path("r"), annotate={"teacher": {"name": "t", "model": "m"}, "prompting": {"suffix": {"go": "Now!"}}})
    how = sampled(cfg, "annotate").prompting
    asked = {d: messages_of(question(row(0, d), "mood", ["good"]), how, KNOWN)[0]["content"] for d in ("chess", "go")}
    assert asked["chess"].endswith("nothing else.")
    assert asked["go"].endswith("nothing else.\nNow!")


def written(cfg: DataConfig, rows: list[Row]) -> dict[str, list[Row]]:
    """What `mix` and the writing of files make of rows."""
    before, after = (phase.shards for phase in phases(cfg))
    before.write(0, "read", rows)
    after.write(0, "mix", mix.prepare(cfg, before, after, over)(0, before.rows(0)))
    names = outputs.write(cfg, lambda done, total: None)
    files = {name: Path(cfg.run) / "data" / f"{name}.jsonl" for name in names}
    return {name: [json.loads(line) for line in file.read_text().splitlines()] for name, file in files.items()}


def test_outputs_take_the_domains_that_they_name_and_keep_their_keys(tmp_path: Path):
    response = {"text": "Qh5", "teacher": "t"}
    rows = [row(n, d, notes={"a": n}, responses=[response], solutions=["x"], tests=[1])
            for n, d in enumerate(["chess", "go", "math", "chess"])]  # fmt: skip
    wanted = [{"name": "sft", "form": "conversations", "domains": ["chess"], "rows": 1},
              {"name": "rl", "domains": ["go", "chess"], "weights": {"go": 1, "chess": 1}}]  # fmt: skip
    files = written(config(tmp_path, steps=["mix"], mix={"outputs": wanted}), rows)
    by_domain = {r["domain"]: r for r in files["rl"]}
    assert set(by_domain) == {"chess", "go"}
    assert by_domain["go"]["solutions"] == ["x"]  # which its verifier is to have
    assert "solutions" not in by_domain["chess"]
    assert by_domain["chess"].items() >= {"fen": "8/8", "best": "Qh5", "notes": by_domain["chess"]["notes"]}.items()
    [talk] = files["sft"]
    assert talk["messages"][0]["content"] == "Mate in one. What is the move?\nSay a move."
    assert talk["fen"] == "8/8"
    found = {r["domain"]: r for r in read_problems(Source(files=(str(tmp_path / "data" / "rl.jsonl"),)), KNOWN)}
    assert KNOWN.reference(found["go"]) == {"solutions": ["x"]}
    assert KNOWN.reference(found["chess"]) == by_domain["chess"]


def test_more_domains_than_a_byte_counts(tmp_path: Path):
    many = {f"d{n}": {"verifier": "m:f"} for n in range(300)}
    names = list(many)
    cfg = config(tmp_path, domains=many, steps=["mix"], mix={"outputs": [{"name": "o", "domains": names[290:]}]})
    files = written(cfg, [row(n, name) for n, name in enumerate(names)])
    assert sorted(r["domain"] for r in files["o"]) == names[290:]


def test_known_problems_may_be_of_such_a_domain(tmp_path: Path):
    (tmp_path / "mine.jsonl").write_text(json.dumps({"problem": "Mate?", "domain": "chess", "fen": "8/8"}) + "\n")
    knobs = Decontaminate(benchmarks=("mine",), data=str(tmp_path))
    known.write(knobs, tmp_path, config(tmp_path).domains)
    assert json.loads((tmp_path / "known.json").read_text())["problems"] == [["mine/mine-0", "Mate?"]]
