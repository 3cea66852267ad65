"""SFT's sequences on disk: the same as in memory, made once, and whole or made again."""

from __future__ import annotations

import fcntl
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringrl.algo.pack import TokenSequence
from ringrl.config.sections import Prompting, Source
from ringrl.data import token_cache
from ringrl.data.chat import load_tokenizer, make_sequences, turn_end
from ringrl.data.source import read_conversations
from ringrl.data.token_cache import TRAINED, Recipe, open_cache
from ringrl.errors import DataError
from scripts.check_configs import publish, talk
from tests.conftest import Inputs

PROMPTING = Prompting(suffix={})


class Opened:
    """How caches are opened here, and what was told meanwhile."""

    def __init__(self, folder: Path, inputs: Inputs) -> None:
        self.folder, self.inputs = folder, inputs
        self.made: list[int] = []  # numbers of conversations, as they are tokenised
        self.told: list[str] = []

    def __call__(
        self, source: Source, model: Path | str = "", prompting: Prompting = PROMPTING, most: int = 4096
    ) -> Any:
        self.made.clear()
        self.told.clear()
        recipe = Recipe(str(model or self.inputs.model), prompting, most)
        return open_cache(source, recipe, self.folder / "run", self.made.append, self.told.append)

    @property
    def caches(self) -> list[Path]:
        return sorted(p for p in (self.folder / "cache").glob("*") if p.suffix != ".lock")


@pytest.fixture
def opened(tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> Opened:
    monkeypatch.setenv("RINGRL_CACHE", str(tmp_path / "cache"))
    return Opened(tmp_path, inputs)


@pytest.fixture
def source(inputs: Inputs) -> Source:
    return Source(files=(inputs.data("sft"),))


def in_memory(source: Source, model: str) -> list[TokenSequence]:
    tokenizer = load_tokenizer(model, PROMPTING)
    end = turn_end(model, tokenizer, PROMPTING)
    return [s for row in make_sequences(read_conversations(source), tokenizer, PROMPTING, end) for s in row]


def same(a: TokenSequence, b: TokenSequence) -> bool:
    dtypes = (a.token_ids.dtype, a.trained.dtype) == (b.token_ids.dtype, b.trained.dtype)
    return dtypes and np.array_equal(a.token_ids, b.token_ids) and np.array_equal(a.trained, b.trained)


def test_sequences_are_those_in_memory_and_made_once(opened: Opened, source: Source) -> None:
    expected, cache = in_memory(source, opened.inputs.model), opened(source)
    assert len(cache) == len(expected) == cache.counts.sequences == opened.made[-1]
    assert all(map(same, cache[:], expected))
    assert same(cache[-1], expected[-1])
    assert cache.longest == max(len(s.token_ids) for s in expected)
    assert (opened.caches[0] / "tokens").stat().st_size == 4 * sum(len(s.token_ids) for s in expected)
    again = opened(source)
    assert not opened.made
    assert all(map(same, again[:], expected))


def test_many_processes_keep_the_order(opened: Opened, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "BATCH", 16)
    monkeypatch.setattr(token_cache, "INLINE", 2)
    assert all(map(same, opened(source)[:], in_memory(source, opened.inputs.model)))


def test_what_makes_other_tokens_makes_another_cache(opened: Opened, source: Source, tmp_path: Path) -> None:
    shutil.copytree(opened.inputs.model, model := tmp_path / "model")
    file = tmp_path / "rows.jsonl"
    shutil.copy(source.files[0], file)
    mine = source.model_copy(update={"files": (str(file),)})
    opened(mine, model)
    opened(mine, model, most=40)
    opened(mine, model, Prompting(suffix={}, template="ring-lite"))
    opened(mine.model_copy(update={"limit": 5}), model)
    assert len(opened.caches) == 4
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    merges = tokenizer["model"]["merges"]
    tokenizer["model"]["merges"] = merges[: len(merges) // 2]
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    longer = opened(mine, model)
    assert opened.made
    assert longer.ends[-1] > opened(source).ends[-1]
    file.write_text(file.read_text().replace("3", "4"))
    opened(mine, model)
    assert opened.made


def test_counts_are_kept(opened: Opened, source: Source) -> None:
    for _ in range(2):
        counts = opened(source, most=60).counts
        assert counts.long > 0
        assert counts.sequences + counts.long == counts.conversations == 256
        assert counts.untrained == counts.split == 0


def cut(folder: Path) -> None:
    with (folder / "tokens").open("r+b") as file:
        file.truncate(100)


def without_about(folder: Path) -> None:
    (folder / "about.json").unlink()


def flip(folder: Path) -> None:
    with (folder / "tokens").open("r+b") as file:
        file.seek(500)
        file.write(b"\x07" * 64)


@pytest.mark.parametrize("damage", [cut, without_about, flip])
def test_a_damaged_cache_is_told_and_made_again(opened: Opened, source: Source, damage: Callable[[Path], None]) -> None:
    whole = opened(source)[:]
    damage(opened.caches[0])
    again = opened(source)
    assert opened.made
    assert "as written; tokenised again" in opened.told[0]
    assert all(map(same, again[:], whole))


def test_a_file_that_is_cut_while_it_is_read_is_an_error(opened: Opened, source: Source) -> None:
    cache = opened(source)
    cut(opened.caches[0])
    with pytest.raises(DataError, match=r"ends at token 25, expected .* as written"):
        cache[:]


def test_what_a_killed_run_left_is_removed(opened: Opened, source: Source) -> None:
    opened(source)
    [folder] = opened.caches
    folder.rename(folder.with_suffix(".part"))
    without_about(folder.with_suffix(".part"))
    opened(source)
    assert opened.caches == [folder]


def test_bad_rows_are_named_and_leave_nothing(opened: Opened, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    talk = {"messages": [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]}
    file.write_text("".join(json.dumps(row) + "\n" for row in [*[talk] * 300, {"messages": 3}]))
    with pytest.raises(DataError, match=f"{file}:301: messages: got"):
        opened(Source(files=(str(file),)))
    assert not opened.caches


def test_a_full_disk_is_an_error_that_leaves_nothing(
    opened: Opened, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_cache.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/cache/\w+\.part'"):
        opened(source)
    assert not opened.caches


def test_two_at_once_make_it_once(opened: Opened, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "POLL_S", 0.01)
    opened(source)
    [lock] = (opened.folder / "cache").glob("*.lock")
    waiting = threading.Event()
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = threading.Thread(
            target=open_cache,
            args=(source, Recipe(opened.inputs.model, PROMPTING, 4096), opened.folder, opened.made.append,
                  lambda text: (opened.told.append(text), waiting.set())),
        )  # fmt: skip
        opened.made.clear()
        second.start()
        assert waiting.wait(60)
    second.join(60)
    assert "is tokenising the same data; waiting for it" in opened.told[0]
    assert not opened.made


def test_data_of_the_hub_stays_with_its_run(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    publish(tmp_path / "owner" / "name", default={"train": [{"messages": talk(i)} for i in range(9)]})
    cache = opened(Source(files=("owner/name",), split="train[2:]"))
    assert len(cache) == 7
    assert not opened.caches
    assert len(list((tmp_path / "run" / "tokens").glob("*/tokens"))) == 1


def test_without_a_place_of_its_own_it_stays_with_the_run(
    opened: Opened, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file := tmp_path / "file").touch()
    monkeypatch.setenv("RINGRL_CACHE", str(file / "cache"))
    (tmp_path / "run").mkdir()
    assert len(opened(source)) == 256
    assert opened.told == [
        f"{file}/cache: cannot be written or locked: Not a directory; the tokens are kept with the run"
    ]
    assert len(list((tmp_path / "run" / "tokens").glob("*/about.json"))) == 1


def test_a_file_that_changes_while_it_is_read_is_an_error(
    opened: Opened, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(source.files[0], file := tmp_path / "rows.jsonl")
    written = token_cache._write

    def and_changed(*args: Any) -> None:
        written(*args)
        file.write_text(file.read_text() + "\n")

    monkeypatch.setattr(token_cache, "_write", and_changed)
    with pytest.raises(DataError, match=f"{file}: changed while it was read"):
        opened(source.model_copy(update={"files": (str(file),)}))
    assert not opened.caches


def test_the_sign_bit_is_no_part_of_an_id() -> None:
    ids = np.array([0, 5, 2**31 - 1], np.int32)
    assert ((ids | TRAINED) & ~TRAINED).tolist() == ids.tolist()
    assert ((ids | TRAINED) < 0).all()
