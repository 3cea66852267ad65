"""What a `ringrl data` run dropped and why, by step and reason, with examples; and all pairs of contamination, side by
side, since only a reader can tell whether two problems are the same.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from ringrl.lines import parsed, read_object
from ringrl.report import page, step_counts
from ringrl.report.page import esc, num, percent, show
from ringrl.report.plots import Row
from ringrl.report.step_counts import Account

PAIRS = 300  # of contamination, listed
COMPARED = 600  # words of a text, up to which the differences of two are marked
# keys that an example shows in a place of their own
SAID = ("id", "own_id", "source", "where", "domain", "problem", "answer", "step", "reason", "detail", "twin",
        "twin_text", "similarity", "share", "passage", "response")  # fmt: skip


def dropped_section(run: Path, steps: Sequence[Account]) -> str:
    text = "".join(_reasons(run, step) for step in steps if step.dropped)
    return '<h3 class="part">What was dropped, and why</h3>' + (text or '<p class="soft">Nothing.</p>')


def _reasons(run: Path, step: Account) -> str:
    """Of one step: a table by source, then examples."""
    reasons = step.reasons.most_common()
    sources = list(sum(step.dropped.values(), Counter[str]())) if len(step.came) > 1 else []
    rows = [[r, num(n), *(num(step.dropped[r][s]) for s in sources)] for r, n in reasons]
    header = ["reason", *map(num, ("dropped", *sources))]
    # all pairs of decontamination are listed elsewhere
    examples = {} if step.name == "decontaminate" else step.examples
    twins = {str(row["twin"]) for some in examples.values() for row in some if row.get("twin")}
    texts = step_counts.problems(run, step.folder, twins)
    shown = ""
    for reason, n in reasons:
        if some := examples.get(reason):
            shown += page.details(f"{reason}: {n:,}, the first {len(some)}", "".join(_example(r, texts) for r in some))
    note = f'<p class="soft">{step.responses:,} of these are responses of rows that went on.</p>'
    where = f'<p class="soft">All of them: {esc(step.folder.relative_to(run))}/dropped.jsonl</p>'
    title = f"{step.name}: {step.lost:,} of {step.came.total():,} rows"
    return page.details(title, page.grid(header, rows, fit=True) + (note if step.responses else "") + shown + where)


def _example(row: Row, texts: dict[str, str]) -> str:
    """A dropped row: what is wrong with it, and beside what it is too close to if that is why."""
    twin = row.get("twin_text") or texts.get(str(row.get("twin")), "")
    where, detail = str(row.get("where", "")), page.middle_left_out(str(row.get("detail", "")))
    if twin and detail.startswith(f"{row.get('twin')}: "):  # its beginning
        detail = ""
    said = [row.get("id", ""), "" if where and detail.startswith(where) else where, detail]
    head = f'<p class="soft">{esc(" · ".join(s for s in said if s))}</p>'
    if row.get("twin"):
        body = _pair(row, twin)
    else:
        expected = f"\n\n[answer] {row['answer']}" if row.get("answer") else ""
        body = _text(str(row.get("problem", "")) + expected)
    if answer := row.get("response"):
        body += "<p>Response</p>" + _text(str(answer.get("text", answer) if isinstance(answer, dict) else answer))
    rest = {k: v for k, v in row.items() if k not in SAID and v != row.get("problem")}
    more = page.folded("other keys", page.middle_left_out(json.dumps(rest, indent=1))) if rest else ""
    return f'<div class="example">{head}{body}{more}</div>'


def _pair(row: Row, twin: str) -> str:
    """Two problems side by side; words that only one of them has are marked."""
    near = [f"{key} {show(row[key])}" for key in ("similarity", "share") if row.get(key) is not None]
    mine, other = _marked(str(row.get("problem", "")), twin) if twin else (_text(row.get("problem", "")), "")
    passage = f'<p class="soft">in common: {esc(row["passage"])}</p>' if row.get("passage") else ""
    title = " · ".join([str(row["twin"]), *near])
    return (
        f'<div class="pair"><div><p>{esc(row.get("id", ""))}</p>{mine}</div>'
        f"<div><p>{esc(title)}</p>{other}</div></div>{passage}"
    )


def _marked(a: str, b: str) -> tuple[str, str]:
    """Both as HTML; without marks if they are long, or have little in common."""
    first, second = (re.findall(r"\S+\s*", text) for text in (a, b))
    if max(len(first), len(second)) > COMPARED:
        return _text(a), _text(b)
    bare = [word.rstrip() for word in first], [word.rstrip() for word in second]
    same = difflib.SequenceMatcher(None, *bare, autojunk=False).get_matching_blocks()
    if 2 * sum(match.size for match in same) < min(len(first), len(second)):
        return _text(a), _text(b)
    only_a, only_b = set(range(len(first))), set(range(len(second)))
    for match in same:
        only_a -= set(range(match.a, match.a + match.size))
        only_b -= set(range(match.b, match.b + match.size))
    return _with_marks(first, only_a), _with_marks(second, only_b)


def _with_marks(words: Sequence[str], marked: set[int]) -> str:
    shown = []
    for i, word in enumerate(words):
        bare = word.rstrip()
        shown.append((f"<mark>{esc(bare)}</mark>" if i in marked else esc(bare)) + word[len(bare) :])
    return f"<pre>{''.join(shown)}</pre>"


def _text(text: str) -> str:
    return f"<pre>{esc(page.middle_left_out(text))}</pre>"


def contamination(step: Account) -> str:
    """Benchmarks looked through, what of them was found, and the pairs."""
    known = read_object(step.folder / "work" / "known.json")  # as large as the benchmarks
    sources = {str(source["name"]): source for source in known.get("sources", ())}
    rows, twins = Counter[str](), dict[str, set[str]]()
    pairs: list[Row] = []
    file = step.folder / "dropped.jsonl"
    for line in step_counts.lines([file] if file.is_file() else []):
        row = parsed(line.decode(errors="replace"))
        if twin := str(row.get("twin", "")):
            name = _owner(twin, sources)
            rows[name] += 1
            twins.setdefault(name, set()).add(twin)
            pairs += [row] if len(pairs) < PAIRS else []
    cells = []
    for name in dict.fromkeys([*sources, *rows]):
        source, hit = sources.get(name, {}), len(twins.get(name, ()))
        size = source.get("problems")
        digest = ", ".join(value[:12] for value in source.get("sha256", {}).values())
        numbers = (size, hit, percent(hit, size) if size else "–", rows[name])
        cells.append([name, *map(num, numbers), digest])
    header = ["kept out", *map(num, ("problems", "of them found", "%", "rows dropped")), "sha256"]
    texts: dict[str, str] = dict(known.get("problems", ()))
    listed = "".join(page.details(_named(r), _pair(r, texts.get(r["twin"]) or r.get("twin_text", ""))) for r in pairs)
    left = rows.total() - len(pairs)
    more = f'<p class="soft">{left:,} more are in {esc(step.folder.name)}/dropped.jsonl.</p>' if left else ""
    all_pairs = page.details(f"Pairs: {rows.total():,}", listed + more) if pairs else ""
    return '<h3 class="part">Contamination</h3>' + (page.grid(header, cells, fit=True) if cells else "") + all_pairs


def _owner(twin: str, sources: Iterable[str]) -> str:
    """The benchmark of "benchmark/id", the file of "file:line"."""
    mine = [name for name in sources if twin.startswith((f"{name}/", f"{name}:"))]
    return max(mine, key=len, default=twin.rpartition("/")[0])


def _named(row: Row) -> str:
    detail = str(row.get("detail", ""))
    twin = "" if detail.startswith(f"{row['twin']}: ") else row["twin"]
    return " · ".join(str(s) for s in (row.get("id"), row.get("reason"), twin, detail) if s)
