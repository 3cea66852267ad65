"""The verifiers of final answers: the corpus of pairs, Math-Verify alone on it, and how fast plain answers are judged.

    python scripts/bench_answers.py [agreement] [speed] [hostile] [--references FILE.jsonl ...]

Prints the agreement of ours and of Math-Verify with the right verdicts and what Math-Verify alone gets wrong, verdicts
per second of one process, the time of each hostile answer, and the share of the references (JSONL with `answer`) that
are plain. Without arguments, all of it.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import math_verify

from ringrl.config.sections import Source
from ringrl.data.source import read_problems
from ringrl.domains import Domains
from ringrl.rewards.answers import verify_math
from ringrl.rewards.plain import read, split_unit
from ringrl.rewards.typography import clean
from ringrl.rewards.verdict import Verdict
from tests.rewards.answer_pairs import MATH, RESPONSES, Pair
from tests.rewards.hostile_answers import HOSTILE, HOSTILE_RESPONSES

MEMORY_BYTES = 4 << 30  # as a verifier process has
MAX_CHARS = 20_000  # Math-Verify's regular expressions take minutes on longer responses


def alone(response: str, reference: str) -> bool:
    """Math-Verify as it comes, with its own time limit of 5 s a step."""
    return math_verify.verify(math_verify.parse(rf"\boxed{{{reference}}}"), math_verify.parse(response))


def ours(response: str, reference: str) -> Verdict:
    return verify_math(response, {"answer": reference})


def agreement(pairs: list[Pair]) -> None:
    wrong: list[tuple[str, Pair]] = []
    ours_right, theirs_right = 0, 0
    for answer, reference, right, note in pairs:
        ours_right += (ours(answer, reference).kind == "pass") == right
        if alone(answer, reference) == right:
            theirs_right += 1
        else:
            wrong.append(("passed" if not right else "failed", (answer, reference, right, note)))
    n = len(pairs)
    print(
        f"{n} pairs: ours agrees on {ours_right}, Math-Verify alone on {theirs_right} ({100 * theirs_right / n:.1f} %)"
    )
    print(f"Math-Verify alone: {Counter(kind for kind, _ in wrong)}")
    for kind, (answer, reference, _, note) in wrong:
        print(f"  {kind}  {answer[:60]!r}  reference {reference[:40]!r}  {note}")


def speed(seconds: float = 3.0) -> None:
    for name, answer, reference in (
        ("integers", "So \\boxed{1234}.", "1,234"),
        ("fractions", r"So \boxed{\frac{3}{4}}.", "0.75"),
        ("with units", r"So \boxed{5\text{ cm}}.", "0.05 m"),
        ("sets", r"So \boxed{\{3, 1, 2\}}.", "1, 2, 3"),
        ("expressions", r"So \boxed{\sqrt{8}}.", r"2\sqrt{2}"),
    ):
        for judge in (ours, alone) if name in ("integers", "expressions") else (ours,):
            n, begun = 0, time.process_time()
            while time.process_time() < begun + seconds:
                n += bool(judge(answer, reference))
            whose = "" if judge is ours else ", Math-Verify alone"
            print(f"{name}{whose}: {n / (time.process_time() - begun):,.0f} verdicts per CPU second")


def hostile() -> None:
    """The table of the answers that are made to cost time, the slowest first."""
    responses = {name: (rf"So \boxed{{{answer}}}.", reference) for name, (answer, reference) in HOSTILE.items()}
    rows = []
    for name, (response, reference) in (responses | HOSTILE_RESPONSES).items():
        begun = time.process_time()
        verdict = ours(response, reference)
        rows.append((time.process_time() - begun, name, verdict))
    for seconds, name, verdict in sorted(rows, key=lambda row: -row[0]):
        print(f"{seconds:7.3f} s  {verdict.kind}  {verdict.reason[:30]:30}  {name}")


def share(file: str) -> None:
    """References that an answer of the same kind is compared with exactly, without an expression."""
    columns = {"problem": "question"} if "question" in Path(file).read_text().partition("\n")[0] else {}
    rows = read_problems(Source(files=(file,), domain="math", columns=columns), Domains())
    plain = sum(read(split_unit(clean(row["answer"])).magnitude) is not None for row in rows)
    print(f"{file}: {plain} of {len(rows)} references are plain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help="agreement, speed, hostile; all by default")
    parser.add_argument("--references", nargs="*", default=[])
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    sections = args.sections or ["agreement", "speed", "hostile"]
    if "agreement" in sections:
        boxed = [(rf"So \boxed{{{a}}}.", *rest) for pairs in MATH.values() for a, *rest in pairs]
        agreement([p for p in [*boxed, *RESPONSES] if len(p[0]) <= MAX_CHARS])
    if "speed" in sections:
        speed()
    if "hostile" in sections:
        hostile()
    for file in args.references:
        share(file)


if __name__ == "__main__":
    main()
