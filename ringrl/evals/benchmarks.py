"""Benchmarks known by name: where they lie on the hub and what their columns are called."""

from __future__ import annotations

from pathlib import Path

from ringrl.config import Bench, Source
from ringrl.errors import ConfigError

BENCHMARKS: dict[str, Source] = {
    "aime24": Source(files=("HuggingFaceH4/aime_2024",), domain="math"),
    "aime25": Source(files=("math-ai/aime25",), split="test", domain="math"),
    "amc23": Source(files=("math-ai/amc23",), split="test", domain="math", columns={"problem": "question"}),
    "math500": Source(files=("HuggingFaceH4/MATH-500",), split="test", domain="math"),
    "gsm8k": Source(files=("openai/gsm8k:main",), split="test", domain="math", columns={"problem": "question"}),
}


def source_of(bench: Bench, data_dir: str) -> Source:
    """Where a benchmark's problems come from: its own `data`, `data_dir`/NAME.jsonl, or the hub.

    Raises:
        ConfigError: the name is unknown and no data is given.
    """
    if bench.data:
        return Source(files=(bench.data,), columns=bench.columns)
    if data_dir:
        return Source(files=(str(Path(data_dir) / f"{bench.name}.jsonl"),), columns=bench.columns)
    if bench.name not in BENCHMARKS:
        raise ConfigError(
            f"benchmarks: got {bench.name!r}, expected one of {', '.join(BENCHMARKS)}, or a name with its `data`"
        )
    return BENCHMARKS[bench.name]
