"""What a `ringrl data` run dropped and why, by step and reason, with examples; and all pairs of contamination and of
contradiction, side by side, since only a reader can tell whether two problems are the same.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ringrl.lines import parsed, read_object
from ringrl.report import page, step_counts
from ringrl.report.plots import Row
from ringrl.report.step_counts import Account

PAIRS = 300  # most pairs of contamination, and of contradiction, that are listed
CONTRADICTED = "another answer to the same problem"  # a reason of `curate.deduplicate`
COMPARED = 600  # most words of a text for which the differences between two are marked
# keys that an example shows in a place of their own
SHOWN_KEYS = ("id", "own_id", "source", "where", "domain", "problem", "answer", "step", "reason", "detail", "twin",
              "twin_text", "similarity", "share", "passage", "response")  # fmt: skip
Words = list[tuple[str, str, bool]]  # (text, the space after it, whether it is marked)


def dropped_section(run: Path, steps: Sequence[Account]) -> Markup:
    parts = [_reasons(run, step) for step in steps if step.dropped]
    contaminated = [_contamination(step) for step in steps if step.name == "decontaminate"]
    contradicted = [found for step in steps if step.name == "deduplicate" and (found := _contradictions(step))["found"]]
    return page.render("dropped", parts=parts, contaminated=contaminated, contradicted=contradicted)


def _reasons(run: Path, step: Account) -> dict[str, Any]:
    """One step: rows of a table by reason and source, then examples."""
    reasons = step.reasons.most_common()
    sources = list(sum(step.dropped.values(), Counter[str]())) if len(step.came) > 1 else []
    # all pairs of decontamination are listed elsewhere
    examples = {} if step.name == "decontaminate" else step.examples
    twins = {str(row["twin"]) for rows in examples.values() for row in rows if row.get("twin")}
    texts = step_counts.problems(run, step.folder, twins)
    return {
        "step": step,
        "sources": sources,
        "reasons": [(reason, n, *(step.dropped[reason][s] for s in sources)) for reason, n in reasons],
        "examples": {r: [_example(row, texts) for row in examples[r]] for r, _ in reasons if examples.get(r)},
        "file": step.folder.relative_to(run) / "dropped.jsonl",
    }


def _example(row: Row, texts: dict[str, str]) -> dict[str, Any]:
    """A dropped row: what is wrong with it, and next to what it is too close to if that is why."""
    twin = row.get("twin_text") or texts.get(str(row.get("twin")), "")
    where, detail = str(row.get("where", "")), page.shorten(str(row.get("detail", "")))
    if twin and detail.startswith(f"{row.get('twin')}: "):  # the first words of the twin, shown in full below
        detail = ""
    head = (row.get("id", ""), "" if where and detail.startswith(where) else where, detail)
    expected = f"\n\n[answer] {row['answer']}" if row.get("answer") else ""
    response = row.get("response") or ""
    rest = {k: v for k, v in row.items() if k not in SHOWN_KEYS and v != row.get("problem")}
    return {
        "head": " · ".join(filter(None, head)),
        "sides": _sides(row, twin) if row.get("twin") else [],
        "passage": row.get("passage"),
        "problem": _unmarked(str(row.get("problem", "")) + expected),
        "response": str(response.get("text", response) if isinstance(response, dict) else response),
        "rest": json.dumps(rest, indent=1) if rest else "",
    }


def _sides(row: Row, twin: str) -> list[tuple[str, Words]]:
    """Title and words of two problems, where those that only one of them has are marked."""
    near = [f"{key} {page.show(row[key])}" for key in ("similarity", "share") if row.get(key) is not None]
    problem = str(row.get("problem", ""))
    own, other = _marked(problem, twin) if twin else (_unmarked(problem), [])
    return [(row.get("id", ""), own), (" · ".join([str(row["twin"]), *near]), other)]


def _marked(a: str, b: str) -> tuple[Words, Words]:
    """The words of two texts, marked where they differ; unmarked if they are long or have little in common."""
    first, second = (re.findall(r"(\S+)(\s*)", text) for text in (a, b))
    if max(len(first), len(second)) > COMPARED:
        return _unmarked(a), _unmarked(b)
    words = [word for word, _ in first], [word for word, _ in second]
    same = difflib.SequenceMatcher(None, *words, autojunk=False).get_matching_blocks()
    if 2 * sum(match.size for match in same) < min(len(first), len(second)):
        return _unmarked(a), _unmarked(b)
    in_a = {i for match in same for i in range(match.a, match.a + match.size)}
    in_b = {i for match in same for i in range(match.b, match.b + match.size)}
    return [(*w, i not in in_a) for i, w in enumerate(first)], [(*w, i not in in_b) for i, w in enumerate(second)]


def _unmarked(text: str) -> Words:
    return [(page.shorten(text), "", False)]


def _contamination(step: Account) -> dict[str, Any]:
    """The benchmarks kept out, how much of each was found, and the pairs."""
    known = read_object(step.folder / "work" / "known.json")  # as large as the benchmarks
    sources = {str(source["name"]): source for source in known.get("sources", ())}
    texts: dict[str, str] = dict(known.get("problems", ()))
    rows, twins = Counter[str](), dict[str, set[str]]()
    pairs: list[dict[str, Any]] = []
    file = step.folder / "dropped.jsonl"
    for line in step_counts.lines([file] if file.is_file() else []):
        row = parsed(line.decode(errors="replace"))
        if twin := str(row.get("twin", "")):
            name = _owner(twin, sources)
            rows[name] += 1
            twins.setdefault(name, set()).add(twin)
            if len(pairs) < PAIRS:
                sides = _sides(row, texts.get(twin) or row.get("twin_text", ""))
                pairs.append({"title": _title(row), "sides": sides, "passage": row.get("passage")})
    benchmarks = []
    for name in dict.fromkeys([*sources, *rows]):
        source = sources.get(name, {})
        digest = ", ".join(value[:12] for value in source.get("sha256", {}).values())
        benchmarks.append((name, source.get("problems"), len(twins.get(name, ())), rows[name], digest))
    return {"benchmarks": benchmarks, "pairs": pairs, "found": rows.total(), "folder": step.folder.name}


def _contradictions(step: Account) -> dict[str, Any]:
    """Pairs of rows with the same words and answers that are not known to be the same, of which one or both went."""
    found, pairs = 0, list[dict[str, Any]]()
    file = step.folder / "dropped.jsonl"
    for line in step_counts.lines([file] if file.is_file() else []):
        row = parsed(line.decode(errors="replace"))
        if row.get("reason") == CONTRADICTED:
            found += 1
            if len(pairs) < PAIRS:
                pairs.append(
                    {"title": _title(row), "sides": _sides(row, str(row.get("twin_text", ""))), "passage": None}
                )
    return {"pairs": pairs, "found": found, "folder": step.folder.name}


def _owner(twin: str, sources: Iterable[str]) -> str:
    """The benchmark of "benchmark/id", the file of "file:line"."""
    owners = [name for name in sources if twin.startswith((f"{name}/", f"{name}:"))]
    return max(owners, key=len, default=twin.rpartition("/")[0])


def _title(row: Row) -> str:
    detail = str(row.get("detail", ""))
    twin = "" if detail.startswith(f"{row['twin']}: ") else row["twin"]
    return " · ".join(str(s) for s in (row.get("id"), row.get("reason"), twin, detail) if s)
