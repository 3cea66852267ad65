"""Which command a run directory belongs to, and which of its settings differ from the command's defaults.

Both are read off config.yaml as plain data, so a configuration of another version gives rows, too.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import to_jsonable_python

from ringrl.config.commands import EvalConfig, PipelineConfig, RLConfig, SelectConfig, SFTConfig
from ringrl.config.data import DataConfig
from ringrl.config.load import Knobs

# a key that only this command's configurations have: what its runs are called, the class
KINDS: dict[str, tuple[str, type[Knobs]]] = {
    "sft": ("pipeline", PipelineConfig),
    "sources": ("data", DataConfig),
    "stages": ("RL", RLConfig),
    "benchmarks": ("evaluation", EvalConfig),
    "probe": ("checkpoint selection", SelectConfig),
    "epochs": ("SFT", SFTConfig),
}
Settings = list[tuple[str, str]]


def read_config(run: Path) -> dict[str, Any]:
    """The content of config.yaml, {} if it is missing or broken."""
    try:
        raw = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return raw if isinstance(raw, dict) else {}


def kind_of(raw: Mapping[str, Any]) -> str:
    """What runs of a configuration are called, "" if it is of no command."""
    return next((name for key, (name, _) in KINDS.items() if key in raw), "")


def changed(raw: Mapping[str, Any], kind: str) -> Settings:
    """The settings that differ from the defaults of that kind as (dotted key, value), without the run directory."""
    rows = {key: value for key, value in raw.items() if key != "run"}
    cls = next((cls for name, cls in KINDS.values() if name == kind), None)
    return list(_changed(rows, None, cls, "")) if cls and rows else []


def _changed(value: Any, default: Any, kind: Any, at: str) -> Iterator[tuple[str, str]]:
    """kind: the type of the value as a model declares it; None if no model does."""
    cls = next((k for k in (kind, *typing.get_args(kind)) if isinstance(k, type) and issubclass(k, Knobs)), None)
    if value == default:
        return
    if isinstance(value, dict) and value:
        named = typing.get_origin(kind) is dict  # names of the user's, such as domains
        fields = cls.model_fields if cls and not named else {}
        if not isinstance(default, dict):
            default = {n: to_jsonable_python(f.get_default()) for n, f in fields.items() if not f.is_required()}
        for key, item in value.items():
            inner = fields[key].annotation if key in fields else cls if named else None
            yield from _changed(item, default.get(key), inner, f"{at}.{key}".lstrip("."))
    elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        for i, item in enumerate(value):
            rest = {key: part for key, part in item.items() if key != "name"}
            yield from _changed(rest, None, cls, f"{at}.{item.get('name', i)}")
    else:
        yield at, (", ".join(map(str, value)) if isinstance(value, list | dict) else str(value)) or "none"
