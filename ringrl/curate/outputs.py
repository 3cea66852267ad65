"""The output files of a chain.

    RUN/data/NAME.jsonl    with `mix`, one output in the order of its draw, so that its first n lines are a fair
                           sample; without, all rows of the last step in their order
    RUN/data/outputs.json  per file: lines, problems, bytes, sha256, problems by source and domain, characters. Written
                           last: if it exists, all files are complete

Problem files are what `rl`, `select-ckpt` and `eval` read, without the keys that only the chain needs. Conversation
files are what `sft` reads: one line per response, after the same prompt that RL makes of the problem. Other keys of a
row, such as labels and pass rates, are kept.

Invariants: a file gets its name when it is complete; memory is one bucket of BUCKET bytes, however many rows there are.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ringrl.config.data import DataConfig, Output
from ringrl.curate.chain import phases
from ringrl.curate.mix import key
from ringrl.curate.shards import Row, Shards
from ringrl.data.source import messages_of
from ringrl.domains import BUILT_IN, CURATION, Domain
from ringrl.lines import replacing, write_atomic

BUCKET = 32 << 20  # bytes of rows sorted at a time
Tick = Callable[[int, int], None]  # called with (shards done, shards in all)


def facts_file(run: Path) -> Path:
    return run / "data" / "outputs.json"


def write(cfg: DataConfig, tick: Tick) -> dict[str, Row]:
    """Writes all files except outputs.json and returns its content."""
    last = phases(cfg)[-1].shards
    folder = facts_file(Path(cfg.run)).parent
    folder.mkdir(exist_ok=True)
    if "mix" not in cfg.steps:
        name = ("read", *cfg.steps)[-1]
        return {name: _write(folder / f"{name}.jsonl", _as_kept(last, tick), Output(name=name), cfg)}
    buckets = folder / ".buckets"
    shutil.rmtree(buckets, ignore_errors=True)  # left by an earlier attempt
    _scatter(last, buckets, cfg.seed, tick)
    outputs = cfg.mix.outputs
    facts = {o.name: _write(folder / f"{o.name}.jsonl", _drawn(buckets, o.name), o, cfg) for o in outputs}
    shutil.rmtree(buckets, ignore_errors=True)
    return facts


def write_facts(run: Path, facts: dict[str, Row]) -> None:
    write_atomic(facts_file(run), json.dumps(facts, indent=1) + "\n")


def _as_kept(shards: Shards, tick: Tick) -> Iterator[Row]:
    for i, n in enumerate(shards.numbers, 1):
        yield from shards.rows(n)
        tick(i, len(shards.numbers))


def _scatter(shards: Shards, folder: Path, seed: int, tick: Tick) -> None:
    """Writes each row, prefixed by its key, to a file per output and leading bits of the key."""
    numbers = shards.numbers
    buckets = sum(shards.file(n).stat().st_size for n in numbers) // BUCKET + 1
    for i, n in enumerate(numbers, 1):
        lines: dict[Path, list[str]] = defaultdict(list)
        for row in shards.rows(n):
            place = key(seed, row["id"])
            lines[folder / row["output"] / f"{place * buckets >> 64:06d}"].append(f"{place:016x}{json.dumps(row)}\n")
        for file, batch in lines.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as out:
                out.writelines(batch)
        tick(i, len(numbers))


def _drawn(buckets: Path, name: str) -> Iterator[Row]:
    """The rows of an output sorted by key."""
    for file in sorted((buckets / name).glob("*")):
        with file.open() as lines:
            for line in sorted(lines, key=lambda line: line[:16]):
                yield json.loads(line[16:])


def _write(file: Path, rows: Iterable[Row], output: Output, cfg: DataConfig) -> Row:
    """Writes one file and returns its entry for outputs.json."""
    sources: Counter[str] = Counter()
    domains: Counter[str] = Counter()
    chars: Counter[str] = Counter()
    digest, size, count = hashlib.sha256(), 0, 0
    with replacing(file) as out:
        for row in rows:
            sources[row["source"]] += 1
            domains[row["domain"]] += 1
            chars["problems"] += len(row["problem"])
            domain = cfg.known_domains[row["domain"]]
            for record in conversations(row, cfg) if output.form == "conversations" else (problem(row, domain),):
                line = json.dumps(record).encode() + b"\n"
                out.write(line)
                digest.update(line)
                size, count = size + len(line), count + 1
                chars["responses"] += len(record["messages"][-1]["content"]) if "messages" in record else 0
    by = {"sources": dict(sorted(sources.items())), "domains": dict(sorted(domains.items())), "chars": dict(chars)}
    facts: dict[str, Any] = {"form": output.form, "lines": count, "problems": sources.total(), "wanted": output.rows}
    return {**facts, "bytes": size, "sha256": digest.hexdigest(), **by}


def problem(row: Row, domain: Domain) -> Row:
    """The row without the keys that only the chain needs."""
    return {k: v for k, v in row.items() if k not in CURATION or k in domain.keys}


def conversations(row: Row, cfg: DataConfig) -> Iterator[Row]:
    """One SFT row per response."""
    prompt = messages_of(row, cfg.mix.prompting, cfg.known_domains)
    judged_by = (*BUILT_IN["code"].keys, *cfg.known_domains[row["domain"]].keys)
    left_out = {"problem", *CURATION, *judged_by}
    known = {k: v for k, v in row.items() if k not in left_out}
    for response in row["responses"]:
        messages = [*prompt, {"role": "assistant", "content": response["text"]}]
        yield {**known, "teacher": response["teacher"], "messages": messages}
