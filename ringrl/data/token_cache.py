"""SFT's sequences on disk: tokenised once for everything that the tokens depend on, then read one at a time, so that
memory does not grow with the data.

A cache is a folder: `tokens`, int32 [N], the ids of all sequences one after the other, with the sign bit set on those
that are trained on; `ends`, int64 [S], where each sequence ends; and about.json, written last, with their sizes and
what was counted on the way. Its name is a hash of what made it. Caches of files lie in a folder of the user's and serve
every run; data of the hub, which says nothing of its contents, is kept with the run.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from functools import cache, partial
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ringrl.algo.pack import TokenSequence
from ringrl.config.sections import Prompting, Source
from ringrl.curate.workers import Workers
from ringrl.data.chat import load_tokenizer, make_sequences, turn_end
from ringrl.data.messages import Message
from ringrl.data.source import HUB_SET, fingerprint, read_conversations
from ringrl.errors import DataError
from ringrl.lines import read_object, sha256, write_atomic

Batch = list[tuple[str, list[Message]]]  # ("file:line", messages)
Report = Callable[[int], None]  # called with the number of conversations that are done

BATCH = 256  # conversations that are encoded together
INLINE = 32  # batches that this process does alone: to start others takes seconds
TRAINED = np.int32(np.iinfo(np.int32).min)  # the sign bit
DEADLINE_S = 4 * 3600.0  # of waiting for another run that makes the same cache
POLL_S = 1.0
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system that knows none


@dataclass(frozen=True, slots=True)
class Counts:
    """Of all conversations of a source."""

    conversations: int = 0
    untrained: int = 0  # of them, without a turn to train on
    split: int = 0  # of them, trained on in parts
    sequences: int = 0  # kept
    long: int = 0  # left out, with more than `max_tokens` tokens


Encoded = tuple[np.ndarray, np.ndarray, Counts]  # lengths, the tokens of one sequence after the other, what was counted


@dataclass(frozen=True, slots=True)
class Recipe:
    """How conversations become sequences."""

    model: str  # folder with the tokenizer
    prompting: Prompting
    max_tokens: int  # longer sequences are left out


class TokenCache(Sequence[TokenSequence]):
    """A finished cache.

    Raises:
        DataError: it is not as it was written.
    """

    def __init__(self, folder: Path) -> None:
        about = read_object(folder / "about.json")
        for name in ("tokens", "ends"):
            size = (folder / name).stat().st_size if (folder / name).is_file() else 0
            if size != about.get(name):
                raise DataError(f"{folder / name}: got {size:,} bytes, expected {about.get(name)} as written")
            if (digest := sha256(folder / name)) != about["sha256"][name]:
                raise DataError(f"{folder / name}: got sha256 {digest}, expected {about['sha256'][name]} as written")
        self.counts = Counts(**about["counts"])
        self.file = folder / "tokens"
        self.ends = np.fromfile(folder / "ends", np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def longest(self) -> int:
        """Tokens."""
        return int(np.diff(self.ends, prepend=0).max(initial=0))

    def __getitem__(self, index: Any) -> Any:
        """A sequence of weight 1, or a list of them. Read, not mapped: pages of a map would count as memory."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        end = int(self.ends[index])
        begin = int(self.ends[index - 1]) if index else 0
        raw = np.fromfile(self.file, np.int32, end - begin, offset=4 * begin)
        if len(raw) != end - begin:
            raise DataError(f"{self.file}: ends at token {begin + len(raw):,}, expected {self.ends[-1]:,} as written")
        return TokenSequence(raw & ~TRAINED, raw < 0, 1.0)


def open_cache(source: Source, recipe: Recipe, run: Path, report: Report, note: Callable[[str], None]) -> TokenCache:
    """The tokens of a source; made if they are not there, while other runs that want them wait.

    Args:
        run: the run's directory, which keeps those of data of the hub.

    Raises:
        DataError: names the first bad rows; or another run has been making the same cache for longer than DEADLINE_S.
        OSError: no space.
    """
    tokenizer = load_tokenizer(recipe.model, recipe.prompting)
    digests = fingerprint((source,))
    made_of = {
        "code": _code(),
        "libraries": {name: version(name) for name in ("transformers", "tokenizers", "jinja2")},
        "data": {**source.model_dump(mode="json"), "files": digests},
        "tokenizer": _tokenizer_hash(tokenizer),
        "prompting": recipe.prompting.model_dump(mode="json"),
        "end": repr(turn_end(recipe.model, tokenizer, recipe.prompting)),
        "max_tokens": recipe.max_tokens,
    }
    name = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]
    root = run / "tokens" if HUB_SET in digests.values() else home()
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (root / f"{name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # another run has it
        pass
    except OSError as e:
        note(f"{root}: cannot be written or locked: {e.strerror}; the tokens are kept with the run")
        (root := run / "tokens").mkdir(exist_ok=True)
    folder, part = root / name, root / f"{name}.part"
    with _alone(root / f"{name}.lock", note):
        if folder.exists():
            try:
                return TokenCache(folder)
            except DataError as e:
                note(f"{e}; tokenised again")
                shutil.rmtree(folder)
        shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
        try:
            _write(part, _encoded(source, recipe, tokenizer), made_of, report)
            if changed := [file for file, digest in fingerprint((source,)).items() if digest != digests[file]]:
                raise DataError(f"{changed[0]}: changed while it was read")
        except BaseException as e:
            shutil.rmtree(part, ignore_errors=True)
            if isinstance(e, OSError):  # of a full disk, which does not say what could not be written
                e.filename = e.filename or str(part)
            raise
        part.rename(folder)
    return TokenCache(folder)


def home() -> Path:
    """Where caches of files are: $RINGRL_CACHE, or ringrl in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("RINGRL_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ringrl" / "tokens"


@contextmanager
def _alone(file: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Holds a lock that the kernel lets go of when this process ends, whatever ends it."""
    end, told = time.monotonic() + DEADLINE_S, False
    with file.open("a+") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.seek(0)
                who = lock.read().strip() or "another process"
                if time.monotonic() > end:
                    raise DataError(
                        f"{file}: process {who} has been making these tokens for {DEADLINE_S:g} s"
                    ) from None
                if not told:
                    note(f"process {who} is tokenising the same data; waiting for it")
                    told = True
                time.sleep(POLL_S)
            except OSError as e:  # a file system without locks; the run's own lock, if it has one, keeps others out
                if e.errno not in NO_LOCKS:
                    raise
                break
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _write(folder: Path, batches: Iterable[Encoded], made_of: Any, report: Report) -> None:
    folder.mkdir()
    counts, ends, at = Counts(), [np.empty(0, np.int64)], 0
    with (folder / "tokens").open("wb") as tokens:
        for lengths, flat, found in batches:
            tokens.write(flat.tobytes())
            ends.append(at + lengths.cumsum())
            at += len(flat)
            counts = Counts(*(a + b for a, b in zip(astuple(counts), astuple(found), strict=True)))
            report(counts.conversations)
        tokens.flush()
        os.fsync(tokens.fileno())
    (folder / "ends").write_bytes(np.concatenate(ends).tobytes())
    sizes = {name: (folder / name).stat().st_size for name in ("tokens", "ends")}
    digests = {name: sha256(folder / name) for name in sizes}
    about = {**sizes, "sha256": digests, "counts": asdict(counts), "made_of": made_of}
    write_atomic(folder / "about.json", json.dumps(about, indent=1))


def _encoded(source: Source, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Iterator[Encoded]:
    """Of batches of conversations, in order; by many processes if there are many."""
    rows = read_conversations(source)
    batches: Iterator[Batch] = iter(lambda: list(islice(rows, BATCH)), [])
    first = list(islice(batches, INLINE))
    following, cores = list(islice(batches, 1)), len(os.sched_getaffinity(0))
    batches = chain(first, following, batches)
    if not following or cores == 1:
        yield from (_encode(batch, recipe, tokenizer) for batch in batches)
        return
    early: dict[int, Encoded] = {}
    due = 0
    with Workers(cores) as workers:
        for (number, _), encoded in workers.map(partial(_encode_elsewhere, recipe), enumerate(batches)):
            early[number] = encoded
            while due in early:
                yield early.pop(due)
                due += 1


def _encode(batch: Batch, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Encoded:
    end = turn_end(recipe.model, tokenizer, recipe.prompting)
    rows = list(make_sequences(batch, tokenizer, recipe.prompting, end))
    found = [s for row in rows for s in row]
    kept = [s for s in found if len(s.token_ids) <= recipe.max_tokens]
    flat = [np.empty(0, np.int32), *(s.token_ids | np.where(s.trained, TRAINED, np.int32(0)) for s in kept)]
    counts = Counts(len(rows), sum(not row for row in rows), sum(len(row) > 1 for row in rows), len(kept),
                    len(found) - len(kept))  # fmt: skip
    return np.array([len(s.token_ids) for s in kept], np.int64), np.concatenate(flat), counts


def _encode_elsewhere(recipe: Recipe, batch: tuple[int, Batch]) -> Encoded:
    """In a process of its own, which loads its tokenizer once."""
    return _encode(batch[1], recipe, _loaded(recipe.model, recipe.prompting.model_dump_json()))


@cache
def _loaded(model: str, prompting: str) -> PreTrainedTokenizerBase:
    return load_tokenizer(model, Prompting.model_validate_json(prompting))


def _tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of all that makes tokens of a text, and a text of messages."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole = backend.to_str() if backend else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    settings = repr(sorted(tokenizer.init_kwargs.items(), key=str))
    special = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    text = "\0".join([type(tokenizer).__name__, whole, settings, special, str(tokenizer.chat_template)])
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _code() -> str:
    """Of the modules that make sequences of rows: another version of ours makes caches of its own."""
    files: Iterable[Path] = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()
