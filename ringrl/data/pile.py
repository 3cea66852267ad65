"""The demo's raw data: problems in three domains with a teacher's responses, and planted faults of many kinds.

    pile/DOMAIN.jsonl            input of `ringrl data`; a planted fault is labelled in the key `fault`, which no step
                                 reads, so that one can count how many were found
    data/heldout_DOMAIN.jsonl    problems to evaluate on, copies of which are planted in the pile

Every fault is made from a problem of its own, except for copies. Invariants, which the tests assert: the same seed
gives the same bytes; without the faults no problem occurs twice, and none is held out.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ringrl.data.tasks import DOMAINS, Rng, Row, problems, program, teach

__all__ = ["FAULTS", "good_rows", "write"]

GOOD = {"math": 4800, "code": 3320, "science": 3060}  # problems per domain, a few more than the demo uses
HELD_OUT = 100  # held-out problems per domain
FAULTY = 0.01  # rows per kind of fault, as a share of the domain's good rows


def write(out: Path, seed: int) -> dict[str, int]:
    """Writes all files; returns the number of lines in each."""
    files: dict[str, list[str]] = {}
    for domain in DOMAINS:
        rng = random.Random(f"pile/{domain}/{seed}")
        held_out, *rest = _split(domain, seed)
        good, spare = (answered(rows, rng) for rows in rest)
        lines = [*map(json.dumps, good), *faulty(domain, good, answered(held_out, rng), iter(spare), rng)]
        rng.shuffle(lines)
        files[f"pile/{domain}.jsonl"] = lines
        files[f"data/heldout_{domain}.jsonl"] = [json.dumps(row) for row in held_out]
    for name, lines in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return {name: len(lines) for name, lines in files.items()}


def good_rows(domain: str, seed: int) -> list[Row]:
    """The faultless problems of a pile, with responses."""
    return answered(_split(domain, seed)[1], random.Random(f"pile/{domain}/{seed}"))


def _split(domain: str, seed: int) -> tuple[list[Row], list[Row], list[Row]]:
    """(held-out problems, good ones, those to make faults from)."""
    good = GOOD[domain]
    kinds = len(LINES) + sum(domain in domains for domains, _ in FAULTS.values())
    rows = problems(domain, HELD_OUT + good + kinds * _per_fault(domain), seed)
    random.Random(f"split/{domain}/{seed}").shuffle(rows)  # rare kinds run out, so the mix drifts
    return rows[:HELD_OUT], rows[HELD_OUT : HELD_OUT + good], rows[HELD_OUT + good :]


def _per_fault(domain: str) -> int:
    return round(GOOD[domain] * FAULTY)


def answered(rows: Sequence[Row], rng: Rng) -> list[Row]:
    """Rows with a response added and, for code, its program as a solution."""
    result = []
    for row in rows:
        text = teach(row, rng)
        extra = {"solutions": [program(text)]} if row["domain"] == "code" else {}
        result.append({**row, **extra, "responses": [{"text": text, "teacher": "demo"}]})
    return result


# ---- faults ------------------------------------------------------------------------------------------------


def faulty(domain: str, good: Sequence[Row], held_out: Sequence[Row], spare: Iterator[Row], rng: Rng) -> Iterator[str]:
    """Lines with faults, an equal number of each kind."""
    for _ in range(_per_fault(domain)):
        yield from (make(json.dumps(next(spare))) for make in LINES)
        for name, (domains, make) in FAULTS.items():
            if domain in domains:
                yield json.dumps({**make(next(spare)), "fault": name})
        yield json.dumps({**_copy(rng.choice(good), lambda text: text), "fault": "copy"})
        yield json.dumps({**_copy(rng.choice(good), str.upper), "fault": "copy in other letters"})
        if domain != "math":  # math problems are so short that one more word makes another text
            yield json.dumps({**_copy(rng.choice(good), _thanks), "fault": "copy with a word more"})
        yield json.dumps({**_copy(rng.choice(held_out), _spaced), "fault": "held out"})


def _copy(row: Row, change: Callable[[str], str]) -> Row:
    """A copy without responses, as found in other data sets."""
    return {**{k: v for k, v in row.items() if k != "responses"}, "problem": change(row["problem"])}


def _spaced(text: str) -> str:
    return re.sub(r"([-+*])", r" \1 ", text).replace(" ", "  ")


def _thanks(text: str) -> str:
    return f"{text} Thanks."


def _wrong(row: Row) -> Row:
    """A row whose response gives another answer, or runs another program."""
    if row["domain"] == "code":
        return _answering(row, row["responses"][0]["text"].replace("print(", "print(7 + "))
    answer = row["answer"]
    other = str(int(answer) + 1) if answer.isdigit() else "ABC"["ABC".index(answer) - 1]
    return _answering(row, row["responses"][0]["text"].replace(f"boxed{{{answer}}}", f"boxed{{{other}}}"))


def _answering(row: Row, text: str) -> Row:
    return {**row, "responses": [{"text": text, "teacher": "demo"}]}


def _is_it(row: Row) -> Row:
    text = f'True or false: the answer to "{row["problem"]}" is {row["answer"]}.'
    return {**row, "problem": text, "answer": "True"}


def _cut_test(row: Row) -> Row:
    return {**row, "tests": [{**test, "output": test["output"][:1] + "..."} for test in row["tests"]]}


ANSWERED, CODE = ("math", "science"), ("code",)
LINES: tuple[Callable[[str], str], ...] = (  # lines that are no valid rows
    lambda line: line[: len(line) // 2],
    lambda line: f"[{line}]",
)
FAULTS: dict[str, tuple[tuple[str, ...], Callable[[Row], Row]]] = {  # name -> (domains, function that plants it)
    "no problem": (DOMAINS, lambda row: {**row, "problem": ""}),
    "broken character": (DOMAINS, lambda row: {**row, "problem": row["problem"].replace(" ", " \ufffd", 1)}),
    "image": (DOMAINS, lambda row: {**row, "problem": f"{row['problem']} ![figure](figure.png)"}),
    "two questions": (ANSWERED, lambda row: {**row, "problem": f"(a) {row['problem']} (b) What is twice of that?"}),
    "no answer": (ANSWERED, lambda row: {**row, "answer": ""}),
    "out of reach": (ANSWERED, lambda row: {**row, "answer": "Answers will vary."}),
    "true or false": (ANSWERED, _is_it),
    "no tests": (CODE, lambda row: {**row, "tests": []}),
    "cut test": (CODE, _cut_test),
    "no solution": (CODE, lambda row: {**row, "solutions": []}),
    "wrong solution": (CODE, lambda row: {**row, "solutions": [f"print(7)\n{row['solutions'][0]}"]}),
    "wrong response": (DOMAINS, _wrong),
    "cut response": (DOMAINS, lambda row: _answering(row, row["responses"][0]["text"].partition("</think>")[0])),
}
