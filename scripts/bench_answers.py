"""The verifiers of final answers: the corpus of pairs, Math-Verify alone on it, and how fast plain answers are judged.

    python scripts/bench_answers.py [--references FILE.jsonl ...]

Prints the agreement of ours and of Math-Verify with the right verdicts, what Math-Verify alone gets wrong, verdicts per
second of one process, and the share of the references (JSONL with `answer`) that never reach Math-Verify.
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
from ringrl.rewards.answers import Verdict, load_math_verify, verify_math
from ringrl.rewards.plain import clean, read, split_unit
from tests.rewards.answer_pairs import MATH, RESPONSES, Pair

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
        ("Math-Verify", r"So \boxed{\sqrt{8}}.", r"2\sqrt{2}"),
    ):
        n, end = 0, time.process_time() + seconds
        begun = time.process_time()
        while time.process_time() < end:
            n += ours(answer, reference).kind == "pass"
        print(f"{name}: {n / (time.process_time() - begun):,.0f} verdicts per CPU second")


def share(file: str) -> None:
    """References that an answer of the same kind is compared with exactly, without Math-Verify."""
    columns = {"problem": "question"} if "question" in Path(file).read_text().partition("\n")[0] else {}
    rows = read_problems(Source(files=(file,), domain="math", columns=columns), Domains())
    plain = sum(read(split_unit(clean(row["answer"])).magnitude) is not None for row in rows)
    print(f"{file}: {plain} of {len(rows)} references are plain")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", nargs="*", default=[])
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    load_math_verify()
    boxed = [(rf"So \boxed{{{a}}}.", *rest) for pairs in MATH.values() for a, *rest in pairs]
    agreement([p for p in [*boxed, *RESPONSES] if len(p[0]) <= MAX_CHARS])
    speed()
    for file in args.references:
        share(file)


if __name__ == "__main__":
    main()
