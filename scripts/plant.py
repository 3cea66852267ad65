"""Faults of every kind that `ringrl data` is to find, planted among real problems; used by bench_data.py.

What is planted is written here by hand, apart from the rules that find it. Every planted row has `planted`, its kind;
copies have `copy_of`, the text they were made from.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ringrl.data.tasks import problems, teach

Row = dict[str, Any]
Rng = random.Random

# ---- copies: the same problem in another dress ----


def spaced(text: str, rng: Rng) -> str:
    """Other white space, line breaks in the middle, tabs."""
    return "".join(rng.choice(("  ", "\n", " ", "\t", " \n ")) if c == " " and rng.random() < 0.4 else c for c in text)


def renamed(text: str, rng: Rng) -> str:
    """Single-letter variables inside $...$ get other names."""
    letters = sorted(set(re.findall(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", " ".join(re.findall(r"\$[^$]*\$", text)))))
    fresh = [c for c in "uwvzkhgqrtlmjxyabcnpsdefUWVZKHGQRTLMJXYABCNPSDEF" if c not in letters]
    rng.shuffle(fresh)
    new = dict(zip(letters, fresh, strict=False))

    def inside(match: re.Match[str]) -> str:
        return re.sub(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", lambda m: new.get(m[0], m[0]), match[0])

    return re.sub(r"\$[^$]*\$", inside, text)


def reordered(text: str, rng: Rng) -> str:
    """Sentences in another order."""
    sentences = re.split(r"(?<=[.?!])\s+", text.strip())
    before = list(sentences)
    while len(set(sentences)) > 1 and sentences == before:
        rng.shuffle(sentences)
    return " ".join(sentences)


def retyped(text: str, rng: Rng) -> str:
    r"""LaTeX typed by somebody else: \dfrac, \( \), thin spaces, \left( \right)."""
    text = re.sub(r"\$([^$]+)\$", r"\\(\1\\)", text).replace(r"\frac", r"\dfrac").replace(r"\le ", r"\leq ")
    return re.sub(r"([+=])", r"\\, \1 \\,", text)


def recased(text: str, rng: Rng) -> str:
    """Case and punctuation, but not that of numbers."""
    return re.sub(
        r"[.,](?!\d)", lambda m: rng.choice((m[0], "", f" {m[0]}")), text.upper() if rng.random() < 0.3 else text
    )


NUMBERS = re.compile(
    "(?i)two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|.*ty|hundred|thousand|half|twice|double|"
    "triple|third|quarter|dozen|once"
)  # without one of these it is another problem


def touched(text: str, rng: Rng) -> str:
    """One word left out or doubled, another said otherwise."""
    words = text.split(" ")
    plain = [i for i, w in enumerate(words) if w.isalpha() and len(w) > 2 and not NUMBERS.fullmatch(w)]
    i = rng.choice(plain)
    words[i] = rng.choice(("", f"{words[i]} indeed"))
    return " ".join(w for w in words if w)


def quoted(text: str, rng: Rng) -> str:
    """Inside a longer text."""
    return (
        f"Here is a problem from an old contest that I could never solve. {text} Give your reasoning in full, please."
    )


COPIES: dict[str, Callable[[str, Rng], str]] = {
    "white space": spaced, "sentences reordered": reordered, "LaTeX retyped": retyped, "case, punctuation": recased,
    "a word changed": touched,
}  # fmt: skip
LEAKS: dict[str, Callable[[str, Rng], str]] = {
    "white space": spaced, "variables renamed": renamed, "sentences reordered": reordered, "LaTeX retyped": retyped,
    "quoted": quoted,
}  # fmt: skip

# ---- bad problems ----

IMAGES = (
    "{} ![](https://img.example.org/p/17.png)", "As shown in the figure, {}", "{} (See the diagram below.)",
    '<img src="graph.gif"> {}', "{} \\includegraphics[width=4cm]{{triangle.pdf}}",
    "{} [asy] draw((0,0)--(1,0)--(0,1)--cycle); [/asy]", "Refer to the graph above. {}",
    "{} https://cdn.example.org/scan.jpg", "In the figure below, {}",
)  # fmt: skip
PARTS = (
    "{} (a) Find the first number. (b) Find the second number.",
    "{} Part A: what is the sum? Part B: what is the difference?",
    "{} i) How many are left? ii) How many were there?", "{} 1) What is the total? 2) What is the mean?",
)  # fmt: skip
INVALID = ("{} caf\ufffd", "{} donâ€™t know", "\x07{}", "{} \ue000", "{} Ã©tait", "{}\x00")
PROOFS = (
    "Prove that the sum of any {} odd numbers and {} even ones has the parity of {}.",
    "Show that among any {} integers there are two whose difference is divisible by {}, and not always by {}.",
    "Let $n$ be a positive integer. Prove that $n^{} - n^{}$ is never equal to ${}$.",
    "Prove: every graph with {} vertices and more than {} edges contains a cycle of length at most {}.",
    "Let $a, b > {}$. Show that $a + b > {}$ and explain why ${}$ would be too much.",
)
CHOICES = (
    "{} (A) {} (B) {} (C) {} (D) {}", "{}\nA) {}\nB) {}\nC) {}\nD) {}", "{}\nA. {}\nB. {}\nC. {}\nD. {}",
    "{} $\\textbf{{(A)}}\\ {}\\qquad\\textbf{{(B)}}\\ {}\\qquad\\textbf{{(C)}}\\ {}\\qquad\\textbf{{(D)}}\\ {}$",
)  # fmt: skip
YES_NO = (
    ("Is it true that {}", "Yes"), ("True or false: {}", "false"), ("{} Answer yes or no.", "no"),
    ("Does the following hold? {}", "No"), ("Decide whether this is right: {}", "True"),
)  # fmt: skip
OUT_OF_REACH = (
    "It depends on what one assumes about the rest of the shop, see the discussion in the text.",
    "The proof is by induction on the number of people who are left in the room after the first round.",
    "approximately, but not exactly, what Anna had in the beginning", "see solution", "\\frac{1}{",
    "Answers will vary.",
)  # fmt: skip
LINES = ('{"problem": "half a line', "[1, 2, 3]", '{"question": "", "answer": "3"}', '{"answer": "7"}', "null")


def bad_problems(texts: Iterator[Row], n: int, rng: Rng) -> Iterator[Row]:
    """`n` of every kind for `cleanse`, made from real problems."""
    for i in range(n):
        question = PROOFS[i % len(PROOFS)].format(*(rng.randint(2, 99) for _ in range(3)))
        yield {"question": question, "answer": ("Proof.", "See above.", "")[i % 3], "planted": "proof"}
    for kind, forms in (("image", IMAGES), ("several parts", PARTS), ("invalid characters", INVALID)):
        for i in range(n):
            row = next(texts)
            yield {**row, "question": forms[i % len(forms)].format(row["question"]), "planted": kind}
    for i in range(n):
        row = next(texts)
        values = [str(rng.randint(1, 99)) for _ in range(4)]
        question = CHOICES[i % len(CHOICES)].format(row["question"], *values)
        yield {**row, "question": question, "answer": rng.choice("ABCD"), "planted": "multiple choice"}
    for i in range(n):
        row, (form, answer) = next(texts), YES_NO[i % len(YES_NO)]
        yield {**row, "question": form.format(row["question"]), "answer": answer, "planted": "yes or no"}
    for i in range(n):
        yield {**next(texts), "answer": ("", None, "  ", "####")[i % 4], "planted": "no answer"}
    for i in range(n):
        yield {**next(texts), "answer": OUT_OF_REACH[i % len(OUT_OF_REACH)], "planted": "out of reach"}


# ---- programs ----

ENDLESS = "while True:\n    pass"
GREEDY = "import sys\nx = [0] * (1 << 31)\nprint(sum(int(w) for w in sys.stdin.read().split()))"
FOREIGN = "import no_such_module_anywhere\nprint(input())"


def programs(good: int, n: int, seed: int) -> Iterator[Row]:
    """`good` code problems with a solution that passes, and `n` of every kind of bad ones."""
    rng = Rng(f"programs/{seed}")
    rows = iter(problems("code", good + 6 * n, seed))

    def solved(row: Row) -> Row:
        code = teach(row, rng).partition("```python\n")[2].partition("```")[0]
        return {"domain": "code", "question": row["problem"], "tests": row["tests"], "solutions": [code]}

    for _ in range(good):
        yield solved(next(rows))
    for kind, code in (("wrong solution", "print(0)"), ("endless solution", ENDLESS), ("greedy solution", GREEDY),
                       ("foreign solution", FOREIGN)):  # fmt: skip
        for _ in range(n):
            yield {**solved(next(rows)), "solutions": [code], "planted": kind}
    for _ in range(n):
        yield {**solved(next(rows)), "solutions": [], "planted": "no solution"}
    for i in range(n):
        row = solved(next(rows))
        first = row["tests"][0]
        typed = {key: text.replace("\n", "\\n") for key, text in first.items()}
        cut = {"input": first["input"][:1] + "...", "output": "..."}
        broken = (cut, {"input": first["input"]}, "1 2 3", typed)[i % 4]
        yield {**row, "tests": [broken], "planted": "broken tests"}


def plant(rows: Sequence[Row], known: Sequence[Row], n: int, seed: int) -> list[Row | str]:
    """`rows` with `n` faults of every kind among them, shuffled; each fault is made from a row of its own.

    Args:
        rows: {"question", "answer"}; those that faults are made from stay, but for the bad problems, which are these.
        known: problems of benchmarks, {"problem", "answer"}.
    """
    rng = Rng(seed)
    order = list(range(len(rows)))
    rng.shuffle(order)
    bad = 7 * n  # kinds of `bad_problems`
    out: list[Row | str] = [rows[i] for i in order[bad:]]
    out += bad_problems((rows[i] for i in order[:bad]), n, rng)
    originals = iter(order[bad:])
    for kind, change in {"exact": lambda text, _: text, **COPIES}.items():
        for _ in range(n):
            row = _changed(iter(lambda: rows[next(originals)], None), "question", change, rng, exact=kind == "exact")
            out.append({**row, "planted": f"copy: {kind}"})
    for kind, change in LEAKS.items():
        pool = [dict(k) for k in known]
        rng.shuffle(pool)
        leaks = iter(pool * (n // len(pool) + 1))
        for _ in range(n):
            row = _changed(leaks, "problem", change, rng)
            out.append({"question": row["problem"], "answer": row["answer"], "copy_of": row["copy_of"],
                        "planted": f"leak: {kind}"})  # fmt: skip
    out += programs(len(rows) // 100, n, seed)
    rng.shuffle(out)
    lines = [LINES[i % len(LINES)] for i in range(n)]
    for line in lines:  # not at the ends
        out.insert(rng.randrange(1, len(out)), line)
    return out


def _changed(rows: Iterator[Row], key: str, change: Callable[[str, Rng], str], rng: Rng, exact: bool = False) -> Row:
    """The first row that `change` changes, changed."""
    for row in rows:
        text = change(row[key], rng)
        if exact or text != row[key]:
            return {**row, key: text, "copy_of": row[key]}
    raise ValueError(f"no row that {change} changes")
