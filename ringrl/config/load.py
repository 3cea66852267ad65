"""The base classes of configurations, and how a YAML file with overrides becomes a checked, frozen one.

Validation checks and never rewrites: what you wrote is what runs. A mapping with `base: FILE` (relative to the file it
stands in) takes that file's content, patched by the keys beside it as in JSON merge patch (RFC 7396): mappings merge,
anything else is replaced, null removes. Integer keys address elements of a list, as in overrides.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ringrl.errors import ConfigError
from ringrl.safe_text import HIDDEN, masked


class Knobs(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def part(self, name: str) -> Any:
        """The value of a field, as a model even where the field holds a raw mapping."""
        return getattr(self, name)


class Layout(Knobs):
    """Settings of how something is computed, which --resume may change except for fields marked FIXED."""


# field markers, in Annotated
FREE, FIXED = "--resume may change it", "--resume must not change it"
ON_DEMAND = "--resume --change may change it"


C = TypeVar("C", bound=Knobs)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is written twice, of which YAML would take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, Any], yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and first.setdefault((key.tag, key.value), key) is not key:
                line = first[key.tag, key.value].start_mark.line + 1
                raise yaml.composer.ComposerError(None, None, f"{key.value}: written twice, first in line {line}, "
                                                  f"expected each key once", key.start_mark)  # fmt: skip
        return node


def parse(text: str, where: str) -> Any:
    """The value of a YAML text. Raises ConfigError, which names `where` and the line."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as e:
        line = f":{e.problem_mark.line + 1}" if e.problem_mark else ""
        kind = "" if isinstance(e, yaml.composer.ComposerError) else "not YAML: "
        said = " ".join(filter(None, (e.context, e.problem)))
        raise ConfigError(f"{where}{line}: {kind}{said}") from None
    except (yaml.YAMLError, ValueError) as e:
        raise ConfigError(f"{where}: not YAML: {' '.join(str(e).split())}") from None
    except RecursionError:
        raise ConfigError(f"{where}: values are nested too deeply") from None


def load(cls: type[C], path: str | Path, overrides: Sequence[str] = ()) -> C:
    """Read `path`, apply `key.sub=value` overrides (values are YAML, null removes), check.

    Raises:
        ConfigError: missing file, bad YAML, unknown or ill-typed key; the message is one line.
    """
    return resolve(cls, read(path), overrides, str(path))


def read(path: str | Path, includers: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The keys of a file merged over those of its bases. Raises ConfigError."""
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{' -> '.join(map(str, (*includers, path)))}: no such configuration file")
    if path.resolve() in (p.resolve() for p in includers):
        raise ConfigError(f"{' -> '.join(map(str, (*includers, path)))}: a file cannot be its own base")
    try:
        raw = parse(path.read_text(encoding="utf-8-sig"), str(path))
    except OSError as e:
        raise ConfigError(f"{path}: not to be read: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not UTF-8: {e.reason} at byte {e.start}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: got {type(raw).__name__}, expected a mapping of keys")
    return _with_bases(raw, (*includers, path))


def resolve(cls: type[C], raw: dict[str, Any], overrides: Sequence[str], where: str) -> C:
    """`raw` with overrides, checked. Raises ConfigError."""
    for item in overrides:
        _override(raw, item)
    return check(cls, raw, where)


def check(cls: type[C], raw: dict[str, Any], where: str) -> C:
    if key := _credential(raw):
        raise ConfigError(f"{where}: {key}: got a URL or a name with a credential in it, which the run directory would "
                          f"keep; expected it without: `key_variable` names an environment variable with the key"
                          )  # fmt: skip
    try:
        return cls.model_validate(raw)
    except ConfigError as e:  # raised by the sections of a pipeline
        raise ConfigError(f"{where}: {e}") from None
    except ValidationError as e:
        raise ConfigError(f"{where}: {_explain(cls, e)}") from None


def dump(cfg: Knobs) -> str:
    value = cfg.model_dump(mode="json")
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    # what a reader would not see is escaped; YAML reads the same
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=False) if HIDDEN.search(text) else text


def _credential(value: Any, at: str = "") -> str:
    """The key of the first value of one word, such as a URL, that holds a credential; "" if there is none."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return next(filter(None, (_credential(item, f"{at}.{key}".lstrip(".")) for key, item in items)), "")
    if not isinstance(value, str) or re.search(r"\s", value.strip()):
        return ""
    return at if masked(value) != value or (at.endswith(("url", "remote")) and "@" in value) else ""


def fixed(value: Any) -> Any:
    """The part of a configuration that --resume must not change, as plain data."""
    if isinstance(value, Knobs):
        fields = type(value).model_fields.items()
        free = isinstance(value, Layout)
        kept = [name for name, f in fields if (FIXED in f.metadata if free else FREE not in f.metadata)]
        return {name: fixed(value.part(name)) for name in kept}
    if isinstance(value, dict):
        return {key: fixed(item) for key, item in value.items()}
    return [fixed(item) for item in value] if isinstance(value, list | tuple) else value


def changeable(value: Any, at: str = "") -> Iterator[str]:
    """Keys of a configuration that are ON_DEMAND, with all that is below them."""
    if isinstance(value, Knobs):
        for name, f in type(value).model_fields.items():
            yield from (f"{at}{name}",) if ON_DEMAND in f.metadata else changeable(value.part(name), f"{at}{name}.")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from changeable(item, f"{at}{i}.")


def _with_bases(node: Any, files: tuple[Path, ...]) -> Any:
    """A copy of `node`, which stands in the last of `files`, with its bases merged in."""
    if isinstance(node, list):
        return [_with_bases(item, files) for item in node]
    if not isinstance(node, dict):
        return node
    own = {key: _with_bases(value, files) for key, value in node.items() if key != "base"}
    if "base" not in node:
        return own
    return _merged(read(files[-1].parent / str(node["base"]), files), own, f"{files[-1]}: ")


def _merged(base: Any, patch: Any, where: str) -> Any:
    if not isinstance(patch, dict):
        return patch
    out = dict(enumerate(base)) if isinstance(base, list) else dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if isinstance(base, list) and key not in out:
            raise ConfigError(f"{where}{key}: the base has a list of {len(base)} there, expected a number below that")
        out[key] = _merged(out.get(key), value, f"{where}{key}.")
    kept = {key: value for key, value in out.items() if value is not None}
    return list(kept.values()) if isinstance(base, list) else kept


def _override(raw: dict[str, Any], item: str) -> None:
    key, eq, value = item.partition("=")
    if not eq:
        raise ConfigError(f"override {item!r}: expected key.sub=value")
    node: Any = raw
    given = parse(value, f"override {item!r}")
    *parents, last = key.split(".")
    try:
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        slot = int(last) if isinstance(node, list) else last
        node[slot] = given
        if value == "null":  # only when spelled out: an empty value is a mistake
            del node[slot]
    except (TypeError, ValueError, IndexError, AttributeError):
        raise ConfigError(f"override {item!r}: the configuration has no {key!r}") from None


def _explain(cls: type[Knobs], error: ValidationError) -> str:
    """One line: key, value got, value expected."""
    first = error.errors()[0]
    loc = [str(p) for p in first["loc"]]
    key = ".".join(loc)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(loc[-1], _fields_at(cls, loc[:-1]), n=1)
        return f"{key}: unknown key" + (f", did you mean {near[0]!r}?" if near else "")
    if first["type"] == "missing":
        return f"{key}: missing"
    if first["type"] == "too_short":
        return f"{key}: got {_shown(first['input'])}, expected at least {first['ctx']['min_length']}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error" or not key:
        # model validators start with a field's name, field validators with 'got'
        return f"{key}{': ' if message.startswith('got ') else '.'}{message}" if key else message
    return f"{key}: got {first['input']!r}, expected: {message[0].lower()}{message[1:]}"


def _shown(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def _fields_at(cls: type[Knobs], loc: Sequence[str]) -> list[str]:
    """Field names of the model that `loc` points into."""
    annotation: Any = cls
    for part in loc:
        if isinstance(annotation, type) and issubclass(annotation, Knobs):
            annotation = typing.get_type_hints(annotation)[part]
        elif args := typing.get_args(annotation):  # tuple[X, ...] or dict[str, X]
            annotation = args[1] if typing.get_origin(annotation) is dict else args[0]
    if typing.get_args(annotation) and not isinstance(annotation, type):
        annotation = typing.get_args(annotation)[0]
    return list(annotation.model_fields) if isinstance(annotation, type) and issubclass(annotation, Knobs) else []
