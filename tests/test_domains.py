"""Domains of every origin: what reaches a verifier, what is refused, and that an unknown name gets a suggestion."""

from __future__ import annotations

import datetime
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

from ringrl.domains import BUILT_IN, Domain, Domains, Reward, verifier_files
from ringrl.errors import DataError

ROW = {"id": "a", "domain": "chess", "problem": "Mate in one?", "fen": "8/8", "moves": ["e4", {"to": 5}], "rating": 900}


def chess(verifier: str = "my_rewards.py:chess", **more: Any) -> Domain:
    return Domain("chess", (Reward("chess", verifier),), "chess", **more)


def test_the_built_in_ones_are_there_without_any_configuration():
    domains = Domains()
    assert list(domains) == ["math", "code", "science", "reasoning_gym"]
    assert len(domains) == 4
    assert domains["math"] is BUILT_IN["math"]
    assert "chess" not in domains
    assert {} not in domains
    with pytest.raises(KeyError):
        domains["chess"]


def test_what_a_domain_names_reaches_its_verifier():
    assert chess(keys=("fen", "rating", "absent")).reference(ROW) == {"fen": "8/8", "rating": 900}
    assert Domains([chess(keys=("fen",))]).reference(ROW) == {"fen": "8/8"}
    code = {"domain": "code", "problem": "p", "tests": [{}], "language": "cpp", "level": "hard", "solutions": ["x"]}
    assert Domains().reference(code) == {"tests": [{}], "language": "cpp"}


def test_without_keys_all_that_json_can_carry_does_but_for_what_curation_adds():
    more = {"when": datetime.date(2025, 1, 1), "raw": b"x", "odd": [{1: 2}], "solutions": ["x"], "responses": [{}]}
    assert chess().reference({**ROW, **more}) == ROW
    named = chess(keys=("solutions",))
    assert named.reference({**ROW, **more}) == {"solutions": ["x"]}


@pytest.mark.parametrize("value", [None, "", [], {}])
def test_a_required_key_is_there_and_says_something(value: object):
    domain = chess(required=("rating", "fen"))
    assert not domain.missing({**ROW, "rating": 0})
    assert domain.missing({**ROW, "fen": value}) == "fen"
    with pytest.raises(DataError, match=r"^f:3: fen: missing, expected what a chess verifier needs$"):
        domain.check({**ROW, "fen": value}, "f:3")


def test_a_key_that_cannot_reach_the_verifier_is_refused_before_the_run():
    chess(keys=("fen", "absent")).check(ROW, "f:3")
    with pytest.raises(DataError, match=r"^f:3: fen: got bytes, expected what JSON can carry$"):
        chess(keys=("fen",)).check({**ROW, "fen": b"8/8"}, "f:3")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"headline": "b"}, "headline: got 'b', expected one of rewards a"),
        ({"rewards": (Reward("a", "x", 0.5),)}, "rewards: got weights 0.5, expected none below 0 and a sum of 1"),
        ({"rewards": (Reward("a", "x", 1.5), Reward("b", "y", -0.5))}, "rewards: got weights 1.5 + -0.5"),
        ({"rewards": (Reward("a", "x", float("nan")),)}, "rewards: got weights nan"),
        ({"rewards": (Reward("a", "x", 0.5), Reward("a", "y", 0.5))}, "rewards: got a, a, expected each name once"),
        ({"comparison": "answer"}, "answer: got '', expected the key of an answer with comparison answer"),
        ({"comparison": "program", "answer": "k"}, "answer: got 'k', expected none with comparison program"),
    ],
)
def test_a_domain_that_contradicts_itself(more: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=r"^\w+: got") as error:
        Domain(**{"name": "chess", "rewards": (Reward("a", "x"),), "headline": "a", **more})
    assert str(error.value).startswith(message)


def test_weights_may_miss_one_by_a_rounding():
    thirds = tuple(Reward(name, "x", 1 / 3 - 2e-7) for name in "abc")
    assert Domain("d", thirds, "a").rewards == thirds
    with pytest.raises(ValueError, match="a sum of 1"):
        Domain("d", tuple(Reward(name, "x", 0.3333) for name in "abc"), "a")


def test_an_unknown_name_gets_a_suggestion():
    domains = Domains([chess()])
    assert domains.find("chess", "f:1") is domains["chess"]
    for name, end in (("ches", "; did you mean 'chess'?"), ("mats", "; did you mean 'math'?"), ("zzz", ""), (None, "")):
        with pytest.raises(DataError) as error:
            domains.find(name, "f:1")
        assert str(error.value) == f"f:1: domain: got {name!r}, expected one of math, code, science, chess{end}"


def test_no_other_may_have_the_name_of_a_built_in_one():
    with pytest.raises(ValueError, match=r"^math: got a domain that is built in, expected another name$"):
        Domains([Domain("math", (Reward("a", "b"),), "a")])


def test_they_travel_to_other_processes():
    domains = Domains([chess(keys=("fen",))])
    there = pickle.loads(pickle.dumps(domains))
    assert there == domains
    assert hash(there) == hash(domains)
    assert there.reference(ROW) == {"fen": "8/8"}
    assert there != Domains()
    assert there != Domains([chess()])


def test_files_of_verifiers_are_looked_for_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("my_rewards.py").write_text("")
    rewards = (Reward("a", "my_rewards.py:a", 0.5), Reward("b", "deep/er.py:b", 0.5), Reward("c", "json:loads", 0.0))
    assert verifier_files(Domains([chess(), Domain("other", (Reward("c", "json:loads"),), "c")])) == ["my_rewards.py"]
    with pytest.raises(
        DataError, match=r"^domains\.two\.rewards\.b\.verifier: got deep/er\.py:b, expected a file that"
    ):
        verifier_files(Domains([Domain("two", rewards, "a")]))
    with pytest.raises(
        DataError, match=r"^domains\.chess\.verifier: got gone\.py:chess, expected a file that is there$"
    ):
        verifier_files(Domains([chess("gone.py:chess")]))


# ---- of installed packages


OFFERS = """
from ringrl.domains import Domain, Reward
chess = Domain("chess", (Reward("chess", "offers:judge"),), "chess", suffix="Say a move.", keys=("fen",))
def go():
    return Domain("go", (Reward("go", "offers:judge"),), "go")
def broken():
    raise RuntimeError("no\\nboard")
number = 3
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "offers", **points: str) -> None:
    """A package as pip leaves it: a module, and what its metadata say of it."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    listed = "".join(f"{domain} = {where}\n" for domain, where in points.items())
    (info / "entry_points.txt").write_text(f"[ringrl.domains]\n{listed}")
    (folder / f"{name}.py").write_text(OFFERS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_package_offers_domains_that_are_loaded_when_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    install(tmp_path, monkeypatch, chess="offers:chess", go="offers:go")
    domains = Domains()
    assert list(domains) == ["math", "code", "science", "reasoning_gym", "chess", "go"]
    assert "go" in domains
    assert "offers" not in sys.modules
    assert domains["chess"].suffix == "Say a move."
    assert domains["go"].name == "go"
    assert domains.reference(ROW) == {"fen": "8/8"}
    assert pickle.loads(pickle.dumps(domains))["chess"] == domains["chess"]
    with pytest.raises(ValueError, match=r"^chess: got a domain of the package offers, expected another name$"):
        Domains([chess()])


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nowhere:chess", "ModuleNotFoundError: No module named 'nowhere'"),
        ("offers:draughts", "AttributeError: module 'offers' has no attribute 'draughts'"),
        ("offers:broken", "RuntimeError: no board"),
        ("offers:number", "TypeError: 'int' object is not callable"),
        ("offers:go", "got a domain called 'go', expected a Domain of this name, or a function that returns one"),
        ("offers:install", "AttributeError"),
    ],
)
def test_what_a_package_offers_wrongly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, said: str):
    install(tmp_path, monkeypatch, chess=where)
    with pytest.raises(DataError) as error:
        Domains()["chess"]
    assert str(error.value).startswith(f"ringrl.domains: chess of the package offers ({where}): {said}")
    assert "\n" not in str(error.value)


def test_two_packages_with_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path / "1", monkeypatch, "offers", chess="offers:chess")
    install(tmp_path / "2", monkeypatch, "more_offers", chess="more_offers:chess")
    assert Domains()["math"].name == "math"
    with pytest.raises(DataError, match=r"the packages \S+offers and \S*offers both have a domain 'chess'; uninstall"):
        Domains()["chess"]


def test_a_package_that_would_hide_a_built_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install(tmp_path, monkeypatch, math="offers:chess")
    with pytest.raises(DataError, match="the packages ringrl and offers both have a domain 'math'; uninstall one"):
        list(Domains())
