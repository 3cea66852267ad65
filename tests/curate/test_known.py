"""What is kept out: benchmarks by name, from a folder or the hub, and files; what the index finds, and what not."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

from ringrl.config.data import Decontaminate
from ringrl.curate import known
from ringrl.curate.overlap import COMMON, Match, OverlapIndex
from ringrl.data.source import read_rows, sha256
from ringrl.errors import ConfigError, DataError
from ringrl.evals.benchmarks import BENCHMARKS
from tests.conftest import lines
from tests.curate.contaminate import CHANGES

SHARED = Path(__file__).parents[3] / "shared" / "data"
NEEDS_SHARED = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the project's shared data")
BOILERPLATE = "where $m$ and $n$ are relatively prime positive integers. Find the value of the sum $m+n$."
DICTIONARY = random.Random(0)
WORDS = ["".join(DICTIONARY.choice("bdfklmnprst") + DICTIONARY.choice("aeiou") for _ in range(3)) for _ in range(3000)]


def story(rng: random.Random, size: int = 40) -> str:
    """Words at random, in sentences, with numbers and formulas between."""
    out = []
    for _ in range(size // 10):
        some = rng.sample(WORDS, 8)
        out.append(
            f"{' '.join(some[:4])} ${rng.choice('abc')}_{rng.randint(1, 99)} = 7x$ {' '.join(some[4:])}.".capitalize()
        )
    return " ".join(out)


def index(*texts: str, ngram: int = 13, share: float = 0.5, threshold: float = 0.5) -> OverlapIndex:
    return OverlapIndex.build(texts, ngram, share, threshold)


def found(by: OverlapIndex, *texts: str) -> list[list[int]]:
    return [[m.problem for m in some] for some in by.find(texts)]


def published(name: str) -> list[str]:
    return [row["problem"] for row in lines(SHARED / "math" / f"{name}.jsonl")]


def gsm8k(name: str) -> list[str]:
    return [row["question"] for _, row in read_rows(str(SHARED / "gsm8k" / f"{name}.jsonl"))]


# ---- what the index finds


@pytest.mark.parametrize("change", CHANGES)
def test_every_generated_problem_is_found_in_every_writing_and_no_other(change: str):
    rng = random.Random(1)
    problems = [story(rng) for _ in range(200)]
    texts = [CHANGES[change](p, rng) for p in problems]
    assert sum(a != b for a, b in zip(problems, texts, strict=True)) == 200
    assert found(index(*problems), *texts) == [[i] for i in range(200)]
    assert found(index(*problems), *(story(rng) for _ in range(1000))) == [[]] * 1000


def test_a_problem_is_found_within_a_long_text_and_says_what_of_it_is_there():
    rng = random.Random(2)
    problems = [story(rng, 40) for _ in range(20)]
    text = story(rng, 2000) + problems[3] + story(rng, 2000)
    assert index(*problems).find([text]) == [[Match(3, 1.0, 0)]]
    [[half]] = index(*problems).find([problems[5][len(problems[5]) // 3 :]])
    assert (half.problem, half.near) == (5, False)
    assert half.share == pytest.approx(2 / 3, abs=0.1)
    assert half.at == pytest.approx(len(problems[5].split()) / 3, abs=10)


def test_the_share_of_words_that_is_needed_is_exact():
    names = WORDS[:40]
    problem, by = " ".join(names), index(" ".join(names), ngram=10, share=0.5, threshold=1.0)
    assert by.find([" ".join(names[:20])]) == [[Match(0, 0.5, 0)]]
    assert by.find([" ".join(names[7:27])]) == [[Match(0, 0.5, 7)]]
    assert by.find([" ".join(names[:19])]) == [[]]
    assert by.find([" ".join(names[:9] + names[20:29])]) == [[]]  # no ten in a row
    assert by.find([" ".join([*names[:10], "other", *names[30:]])]) == [[Match(0, 0.5, 0)]]
    assert by.find([problem.upper().replace(" ", ", ")]) == [[Match(0, 1.0, 0)]]


def test_boilerplate_is_neither_evidence_nor_counted():
    rng = random.Random(3)
    own = [story(rng, 20) for _ in range(COMMON + 1)]
    few, many = index(*(f"{p} {BOILERPLATE}" for p in own[:COMMON])), index(*(f"{p} {BOILERPLATE}" for p in own))
    fresh = f"{story(rng, 20)} {BOILERPLATE}"
    assert (few.gram_at.size, many.gram_at.size) != (0, 0)
    assert found(few, BOILERPLATE) == [[]]
    assert found(many, fresh, BOILERPLATE) == [[], []]
    [[match]] = many.find([own[0]])  # all of its own words are there
    assert match.share > 0.9


def test_a_short_problem_is_one_ngram_and_the_shortest_stands_alone():
    by = index("What is one plus one?", "Evaluate $2^9$", "What is the capital city of France?")
    assert found(by, "so: what IS  one plus one", "What is one plus two?", "one plus one") == [[0], [], []]
    assert found(by, "evaluate 2^{9}.", "Evaluate 2^9 and add 1", "What is the capital city of Spain?") == [[1], [], []]


def test_characters_tell_where_words_are_not_apart():
    """As in Chinese; nothing is in common with another text."""
    rng = random.Random(4)
    hanzi = [chr(c) for c in range(0x4E00, 0x5E00)]
    problems = ["".join(rng.sample(hanzi, 60)) + "?12+7" for _ in range(50)]
    texts = [p[:20] + rng.choice(hanzi) + p[21:] for p in problems]
    assert found(index(*(f"{p} a b c d" for p in problems)), *texts) == [[i] for i in range(50)]


def test_runs_of_characters_count_in_one_passage_only():
    rng = random.Random(5)
    problem = " ".join(rng.sample(WORDS, 24)).split()
    scattered = " ".join(w for name in problem for w in [name, *rng.sample(WORDS, 30)])
    by = index(" ".join(problem), *(story(rng) for _ in range(20)), threshold=0.3)
    assert found(by, scattered) == [[]]
    assert found(by, " ".join(rng.sample(problem, 24))) == [[0]]


@pytest.mark.parametrize("threshold", [0.4, 0.6, 0.8])
def test_the_index_misses_nothing_above_the_threshold(threshold: float):
    """Against all pairs, compared one by one."""
    rng = random.Random(6)
    few = WORDS[:40]  # so that there is much in common
    problems = sorted({" ".join(rng.choices(few, k=rng.randint(5, 30))) for _ in range(40)})
    texts = [" ".join(w for w in p.split() if rng.random() < 0.8) for p in problems]
    texts = [f"{' '.join(rng.choices(few, k=rng.randint(0, 40)))} {text}" for text in texts]
    weight = weights(problems)
    expected = {
        (t, p)
        for t, text in enumerate(texts)
        for p, problem in enumerate(problems)
        if similarity(problem, text, weight) >= (0.9 if len(runs(problem)) < 40 else threshold)
    }
    matches = [
        (t, m) for t, some in enumerate(index(*problems, share=1.0, threshold=threshold).find(texts)) for m in some
    ]
    assert {(t, m.problem) for t, m in matches if m.near} == expected - {
        (t, m.problem) for t, m in matches if not m.near
    }
    assert len(expected) > (threshold < 0.7) * 30


def runs(joined: str) -> set[str]:
    joined = joined.replace(" ", "")
    return {joined[i : i + 5] for i in range(len(joined) - 4)}


def weights(problems: list[str]) -> dict[str, float]:
    frequency = Counter(run for problem in problems for run in runs(problem))
    return {run: float(np.log((len(problems) + 1) / df)) for run, df in frequency.items()}


def similarity(problem: str, text: str, weight: dict[str, float]) -> float:
    own, joined, width = runs(problem), text.replace(" ", ""), 2 * len(problem.replace(" ", "")) + 5
    passages = [joined[i : i + width] for i in range(max(1, len(joined) - width + 1))]
    return max(sum(weight[r] for r in runs(p) & own) for p in passages) / sum(weight[r] for r in own)


# ---- which problems


def test_files_benchmarks_and_their_sums(tmp_path: Path):
    rng = random.Random(7)
    texts = [story(rng) for _ in range(4)]
    (tmp_path / "mine.jsonl").write_text(json.dumps({"id": 7, "problem": texts[0], "answer": "1"}) + "\n")
    (tmp_path / "gsm8k.jsonl").write_text(json.dumps({"question": texts[1], "answer": "#### 2"}) + "\n")
    file = tmp_path / "chat.jsonl"
    messages = [
        {"role": "system", "content": "x"},
        {"role": "user", "content": texts[2]},
        {"role": "assistant", "content": "y"},
    ]
    rows = [{"messages": messages}, {"question": texts[3]}, {"problem": texts[0].upper()}]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    knobs = Decontaminate(benchmarks=("mine", "gsm8k"), data=str(tmp_path), files=(str(file),))
    known.check(knobs)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        known.write(knobs, tmp_path / folder, {})
    said = json.loads((tmp_path / "a" / "known.json").read_text())
    assert said["sources"][1] == {
        "name": "gsm8k",
        "problems": 1,
        "sha256": {str(tmp_path / "gsm8k.jsonl"): sha256(tmp_path / "gsm8k.jsonl")},
    }
    assert [i for i, _ in said["problems"]] == [
        "mine/7",
        "gsm8k/gsm8k-0",
        f"{file}:1",
        f"{file}:2",
    ]  # the last is mine/7
    assert [t for _, t in said["problems"]] == texts
    for name in ("known.npz", "known.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    loaded = known.load(tmp_path / "a")
    assert loaded is known.load(tmp_path / "a")
    assert loaded
    assert found(loaded.index, *texts, story(rng)) == [[0], [1], [2], [3], []]


def test_all_benchmarks_that_eval_knows():
    assert known.names(Decontaminate()) == list(BENCHMARKS)
    assert known.names(Decontaminate(benchmarks=("gsm8k", "all")))[:2] == ["gsm8k", "aime24"]
    assert known.names(Decontaminate(benchmarks=())) == []


def test_what_is_not_to_be_had_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def offline(*_: object, **__: object) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(
        DataError, match=r"^decontaminate: aime24: hf:.*no network; put aime24\.jsonl .*`decontaminate\.data`, or list"
    ):
        known.write(Decontaminate(), tmp_path, {})
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"^decontaminate\.benchmarks: got 'aime42', expected all, one of aime24, "):
        known.check(Decontaminate(benchmarks=("aime42",)))
    with pytest.raises(DataError, match=r"^decontaminate\.data: got nowhere, expected a folder"):
        known.check(Decontaminate(data="nowhere"))
    with pytest.raises(DataError, match=r"gone\.jsonl: no such data file"):
        known.check(Decontaminate(files=(str(tmp_path / "gone.jsonl"),)))
    (tmp_path / "odd.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(
        DataError, match=r"odd\.jsonl:1: got keys text, expected a text in problem or question, or messages"
    ):
        known.write(Decontaminate(benchmarks=(), files=(str(tmp_path / "odd.jsonl"),)), tmp_path, {})


# ---- published problems


@NEEDS_SHARED
def test_published_problems_are_found_in_every_writing():
    names = ("aime24", "aime25", "amc23")
    problems = [p for name in names for p in published(name)]
    by, rng = index(*problems), random.Random(8)
    for change, least in (("spaced", 100), ("variables", 99), ("sentences", 99), ("retyped", 100), ("numbers", 90)):
        got = found(by, *(CHANGES[change](p, rng) for p in problems))
        assert sum(some == [i] for i, some in enumerate(got)) >= least, change
        assert not [some for i, some in enumerate(got) if set(some) - {i}]
    for name in names:
        others = [p for other in names if other != name for p in published(other)]
        assert not any(found(index(*published(name)), *others))


@NEEDS_SHARED
def test_published_training_problems_stay():
    questions = gsm8k("train")
    problems = [p for name in ("aime24", "aime25", "amc23") for p in published(name)]
    assert not any(found(index(*problems), *questions))


@NEEDS_SHARED
def test_paraphrases_are_found_as_far_as_words_go():
    """Light changes; what tells the same story in other words is for an embedding model."""
    questions = gsm8k("test")
    by = index(*questions)
    right: dict[str, int] = {}
    for row in lines(Path(__file__).parent / "paraphrases.jsonl"):
        right[row["kind"]] = right.get(row["kind"], 0) + (found(by, row["problem"]) == [[row["of"] - 1]])
    assert right["light"] >= 8
    assert list(right) == ["light", "sentences", "story", "free"]
    assert sum(right.values()) < 20
