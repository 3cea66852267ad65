"""What is found out about a checkpoint before a run goes on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ringrl.config.sections import Trainer
from ringrl.errors import DataError, RingError
from ringrl.lines import sha256
from ringrl.run import FILES, verify_checkpoint


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """As two ranks with all experts on each would leave it."""
    from ringrl.policy.checkpoint import Writer
    from ringrl.run import FORM

    folder = tmp_path / "step_000002"
    layout = {
        "form": FORM,
        "ranks": 2,
        "experts": "fused",
        "expert": 1,
        "zero": 1,
        "implementation": "experts",
        "offload": "none",
    }
    writers = [Writer(rank, 2, 10) for rank in range(2)]
    for writer in writers:
        writer.begin(folder)
        writer.values(f"trainer/rng_{writer.rank}.safetensors", {"torch": 1})
        if writer.rank == 0:
            writer.text("trainer/state.json", json.dumps({"layout": layout}))
        assert not folder.exists()
        writer.end(lambda: None)
    for writer in writers:
        writer.settle()
    return folder


def trainer(**parallel: Any) -> Trainer:
    return Trainer.model_validate({"ranks": 4, "parallel": parallel})


def test_a_folder_appears_when_all_ranks_are_done(saved: Path) -> None:
    names = [str(p.relative_to(saved)) for p in sorted(saved.rglob("*")) if p.is_file()]
    assert names == [f"trainer/{n}" for n in ("files.json", "rng_0.safetensors", "rng_1.safetensors", "state.json")]
    assert [p.name for p in saved.parent.iterdir()] == ["step_000002"]


def test_another_number_of_ranks_is_no_obstacle(saved: Path) -> None:
    from ringrl.policy.engine import saved_layout

    assert saved_layout(saved, trainer())["experts"] == "fused"


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        ({"expert": 2}, "trainer.parallel.expert: got 2, expected 1, with which"),
        ({"zero": 3}, "trainer.parallel.zero: got 3, expected 1, with which"),
    ],
)
def test_what_cannot_be_taken_over_is_said(saved: Path, parallel: dict[str, Any], message: str) -> None:
    from ringrl.policy.engine import saved_layout

    with pytest.raises(DataError, match=message):
        saved_layout(saved, trainer(**parallel))


def test_experts_in_the_form_of_an_earlier_version_are_refused(saved: Path) -> None:
    from ringrl.policy.engine import saved_layout

    state = saved / "trainer" / "state.json"
    state.write_text(state.read_text().replace('"fused"', '"other"'))
    with pytest.raises(DataError, match=r"step_000002: got experts in the form other, expected fused or shards"):
        saved_layout(saved, trainer())


def test_rollouts_and_random_states_that_were_exchanged_run_nothing(tmp_path: Path) -> None:
    import torch

    from ringrl.policy.checkpoint import values
    from ringrl.policy.engine import unfinished

    class Touches:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "trainer").mkdir()
    file = tmp_path / "trainer" / "unfinished.safetensors"
    torch.save(Touches(), file)
    for reader, place in ((unfinished, tmp_path), (values, file)):
        with pytest.raises(DataError, match=r"unfinished\.safetensors: .*expected what ringrl writes there"):
            reader(place)
    assert not (tmp_path / "ran").exists()


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    import random

    import torch

    from ringrl.data.arrays import read, to_bytes
    from ringrl.policy.engine import rng_state, set_rng_state

    random.gauss(0, 1)  # leaves a second number behind
    (tmp_path / "file").write_bytes(to_bytes(rng_state()))
    expected = random.gauss(0, 1), random.random(), torch.rand(3).tolist()
    random.seed(1)
    torch.manual_seed(1)
    set_rng_state(read(tmp_path / "file"))
    assert (random.gauss(0, 1), random.random(), torch.rand(3).tolist()) == expected


def test_every_file_has_the_hash_of_what_was_written(saved: Path) -> None:
    listed = json.loads((saved / FILES).read_text())
    assert listed == {
        name: [(saved / name).stat().st_size, sha256(saved / name)]
        for name in ("trainer/rng_0.safetensors", "trainer/rng_1.safetensors", "trainer/state.json")
    }
    verify_checkpoint(saved)
    (saved / "trainer" / "rng_1.safetensors").write_bytes(bytes(listed["trainer/rng_1.safetensors"][0]))
    with pytest.raises(DataError, match=r"rng_1\.safetensors: got sha256 \w{64}, expected \w{64} as written$"):
        verify_checkpoint(saved)


def test_weights_and_what_others_write_into_the_folder_are_hashed_too(tmp_path: Path) -> None:
    import torch

    from ringrl.policy.checkpoint import Writer

    writer, folder = Writer(0, 1, 10), tmp_path / "step_000001"
    writer.begin(folder)
    (writer.part / "config.json").write_text("{}")
    writer.model([{"a": torch.ones(3)}, {"b": torch.zeros(3)}])
    writer.file(writer.part / "trainer" / "engine" / "states.pt", {"c": torch.ones(1)})
    writer.end(lambda: None)
    writer.settle()
    files = {str(f.relative_to(folder)): [f.stat().st_size, sha256(f)] for f in folder.rglob("*") if f.is_file()}
    assert files.pop(FILES)
    assert json.loads((folder / FILES).read_text()) == files
    assert len(files) == 5


@pytest.mark.parametrize("before", [False, True])
def test_what_cannot_be_written_is_an_error_of_the_next_call_and_leaves_nothing(before: bool, tmp_path: Path) -> None:
    from ringrl.policy.checkpoint import Writer

    whole = "the one before it is whole" if before else "there is none before it"
    if before:
        (tmp_path / "step_000000").mkdir()
    writer = Writer(0, 1, 10)
    writer.begin(tmp_path / "step_000001")
    writer.text("trainer/state.json/impossible", "")
    writer.text("trainer/state.json", "")
    writer.jobs.join()
    # what is written beside the thread misses the folder then, which is not the cause
    said = rf"step_000001: the checkpoint could not be written: .*Is a directory.*; {whole}$"
    with pytest.raises(RingError, match=said), writer.guard():
        (writer.part / "zero_to_fp32.py").write_text("")
    writer.end(lambda: None)
    with pytest.raises(RingError, match="Is a directory"):
        writer.settle()
    assert [p.name for p in tmp_path.iterdir()] == ["step_000000"] * before


def test_ranks_that_never_finish_are_not_waited_for(tmp_path: Path) -> None:
    from ringrl.policy.checkpoint import Writer

    writer = Writer(0, 2, 0.1)
    writer.begin(tmp_path / "step_000001")
    writer.end(lambda: None)
    with pytest.raises(RingError, match=r"no word from all ranks within 0\.1 s"):
        writer.settle()
