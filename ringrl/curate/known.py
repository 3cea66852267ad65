"""Problems that must not be trained on: those of the benchmarks that `ringrl eval` knows, and of any other file.

Their index is built once, in a folder from which every process loads it:

    known.npz    curate.overlap.OverlapIndex
    vectors.npy  [P, d] float16, embeddings of the problems, if a model is configured
    known.json   {"sources": [{"name", "problems", "sha256": {file: ...}}], "problems": [[id, text]]}; written last

`id` is "benchmark/id", or "file:line". A problem in several sources is listed once, with the id of the first.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ringrl.config.commands import Bench, EvalConfig
from ringrl.config.data import Decontaminate
from ringrl.config.sections import DomainSection, Source
from ringrl.curate.dress import bare, plain
from ringrl.curate.embed import embedder
from ringrl.curate.lsh import save
from ringrl.curate.overlap import Match, OverlapIndex
from ringrl.curate.text import canonical, unmarked, words
from ringrl.data.files import ENDINGS
from ringrl.data.source import Row, check_readable, fingerprint, read_rows
from ringrl.errors import ConfigError, DataError
from ringrl.evals.benchmarks import BENCHMARKS, read_benchmark, source_of
from ringrl.lines import write_atomic

Problems = dict[str, str]  # id -> text


@dataclass(frozen=True)
class Known:
    """P different problems and their index."""

    ids: list[str]
    texts: list[str]
    index: OverlapIndex
    vectors: np.ndarray  # [P, d], of length 1; [0, 0] without a model

    def passage(self, match: Match) -> str:
        """The first run of the problem's words that the text has, too."""
        return " ".join(
            unmarked(words(bare(plain(self.texts[match.problem]))))[match.at :][
                : int(self.index.gram_words[match.problem])
            ]
        )

    def describe(self, match: Match) -> str:
        """How much of the problem a text has, in words."""
        if match.near:
            return f"{100 * match.share:.0f} % of it, near"
        return f"{100 * match.share:.0f} % of its words, from “{self.passage(match)}”"


def index_of(problems: Problems, knobs: Decontaminate) -> Known:
    """Builds the index of at least one problem."""
    different: dict[tuple[str, ...], str] = {}
    for name, text in problems.items():
        different.setdefault(tuple(canonical(words(bare(plain(text))))), name)
    ids = list(different.values())
    texts = [problems[i] for i in ids]
    undressed = [bare(plain(text)) for text in texts]
    index = OverlapIndex.build(undressed, knobs.ngram, knobs.share, knobs.threshold)
    return Known(ids, texts, index, np.zeros((0, 0), np.float16))


def check(knobs: Decontaminate) -> None:
    """Checks the configuration without reading much. Raises ConfigError, DataError."""
    names(knobs)
    if knobs.data and not Path(knobs.data).is_dir():
        raise DataError(f"decontaminate.data: got {knobs.data}, expected a folder with NAME.jsonl of benchmarks")
    check_readable(tuple(Source(files=(file,)) for file in knobs.files))


def names(knobs: Decontaminate) -> list[str]:
    """Names of the benchmarks to keep out. Raises ConfigError for an unknown one."""
    requested = [n for name in knobs.benchmarks for n in (BENCHMARKS if name == "all" else [name])]
    for name in requested:
        if name not in BENCHMARKS and not local_file(name, knobs.data):
            raise ConfigError(f"decontaminate.benchmarks: got {name!r}, expected all, one of {', '.join(BENCHMARKS)}, "
                              f"or the name of a file in decontaminate.data")  # fmt: skip
    return list(dict.fromkeys(requested))


def local_file(name: str, folder: str) -> str:
    """The user's own file of a benchmark, or ""."""
    files = (Path(folder) / f"{name}{suffix}" for suffix in ENDINGS) if folder else ()
    return next((str(f) for f in files if f.is_file()), "")


def write(knobs: Decontaminate, folder: Path, domains: Mapping[str, DomainSection]) -> None:
    """Builds the index unless it exists. Raises DataError; ConfigError; what the embedding model raises.

    domains: the user's own domains, since rows of a benchmark may name them.
    """
    if (folder / "known.json").is_file():
        return
    sources, problems = read(knobs, domains)
    if problems:
        known = index_of(problems, knobs)
        known.index.save(folder / "known.npz")
        if knobs.embedding.model:
            save(folder / "vectors.npy", embedder(knobs.embedding)(known.texts))
        problems = dict(zip(known.ids, known.texts, strict=True))
    write_atomic(folder / "known.json", json.dumps({"sources": sources, "problems": list(problems.items())}))


@functools.cache
def load(folder: Path) -> Known | None:
    """What `write` wrote; None if there are no problems to keep out."""
    problems = json.loads((folder / "known.json").read_text())["problems"]
    if not problems:
        return None
    vectors = folder / "vectors.npy"
    return Known(
        [i for i, _ in problems],
        [text for _, text in problems],
        OverlapIndex.load(folder / "known.npz"),
        np.load(vectors) if vectors.is_file() else np.zeros((0, 0), np.float16),
    )


def read(knobs: Decontaminate, domains: Mapping[str, DomainSection]) -> tuple[list[Row], Problems]:
    """(one row per source, all problems). Raises DataError; ConfigError."""
    rows: list[Row] = []
    problems: Problems = {}
    for name in names(knobs):
        texts, source = _benchmark(name, knobs.data, domains)
        rows.append({"name": name, "problems": len(texts), "sha256": fingerprint([source], fetch=True)})
        problems |= texts
    for file in knobs.files:
        texts = dict(_file(file))
        rows.append({"name": file, "problems": len(texts), "sha256": fingerprint([Source(files=(file,))], fetch=True)})
        problems |= texts
    return rows, problems


def _benchmark(name: str, folder: str, domains: Mapping[str, DomainSection]) -> tuple[Problems, Source]:
    bench = Bench(name=name, data=local_file(name, folder))
    cfg = EvalConfig(run="", model="", benchmarks=(bench,), domains=dict(domains))
    try:
        rows = read_benchmark(bench, cfg)
    except DataError as e:
        if bench.data:
            raise
        raise DataError(
            f"decontaminate: {name}: {e}; put {name}.jsonl (.parquet, .csv) into a folder and name it in "
            f"`decontaminate.data`, or list in `decontaminate.benchmarks` those you can have"
        ) from None
    return {f"{name}/{row['id']}": row["problem"] for row in rows}, source_of(bench, cfg)


def _file(name: str) -> Iterator[tuple[str, str]]:
    for where, row in read_rows(name):
        yield where, _problem(row, where)


def _problem(row: Row, where: str) -> str:
    messages: Any = row.get("messages")
    questions = [m.get("content") for m in messages if m.get("role") == "user"] if isinstance(messages, list) else []
    for text in (row.get("problem"), row.get("question"), "\n".join(filter(None, questions))):
        if isinstance(text, str) and text.strip():
            return text
    raise DataError(f"{where}: got keys {', '.join(sorted(row))}, expected a text in problem or question, or messages")
