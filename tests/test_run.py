"""The run directory: never overwritten, continued only with the same configuration, and reads as if unbroken."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringrl.config.commands import PipelineConfig, RLConfig, SFTConfig
from ringrl.config.data import DataConfig
from ringrl.config.load import dump, resolve
from ringrl.config.sections import Source
from ringrl.data.source import fingerprint
from ringrl.errors import DataError
from ringrl.launch.opening import Origin, Resume, exclusive, open_run, opened
from ringrl.launch.origin import hashes_of_models
from ringrl.lines import sha256
from ringrl.processes import locked
from ringrl.run import FILES, FORM, Progress, Run, forgettable, verify_checkpoint


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"messages": []}\n')
    return file


def config(tmp_path: Path, data: Path, *overrides: str) -> SFTConfig:
    source = {"files": [str(data)]}
    raw = {"run": str(tmp_path / "runs" / "one"), "model": "m", "data": source, "validation": source}
    return resolve(SFTConfig, raw, overrides, "x")


def reopened(cfg: SFTConfig | RLConfig, data: Path, resume: bool = False) -> Run:
    return open_run(cfg, Origin(cfg.model, fingerprint([Source(files=(str(data),))])), Resume() if resume else None)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_new_run_holds_its_configuration_and_where_it_comes_from(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    run = reopened(cfg, data)
    assert SFTConfig.model_validate(yaml.safe_load((run.path / "config.yaml").read_text())) == cfg
    lineage = json.loads((run.path / "lineage.json").read_text())
    assert lineage["data"] == {str(data): hashlib.sha256(data.read_bytes()).hexdigest()}
    assert Path(lineage["parent"]).is_absolute()
    assert {"ringrl", "python", "torch", "transformers"} <= lineage["versions"].keys()
    assert set(files(run.path)) == {"config.yaml", "lineage.json"}


def test_lineage_names_no_credential_of_the_command(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "sys.argv", ["ringrl", "sft", "x=http://user:hunter2@h/?api_key=hunter2&y=1", "hf_hunter2hunter2"]
    )
    run = reopened(config(tmp_path, data), data)
    command = json.loads((run.path / "lineage.json").read_text())["command"]
    assert command == "ringrl sft 'x=http://***@h/?api_key=***&y=1' ***"


def test_hidden_characters_of_a_configuration_are_escaped_and_read_back(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data, "prompting.system='Größe \u202e \u200b'")
    text = (reopened(cfg, data).path / "config.yaml").read_text()
    assert "\u202e" not in text
    assert SFTConfig.model_validate(yaml.safe_load(text)) == cfg


def add_checkpoint(run: Run, step: int, **layout: int) -> Path:
    """A checkpoint as it is written, in small, and the metrics up to it."""
    folder = run.checkpoint(step)
    (folder / "trainer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (folder / "trainer" / "state.json").write_text(json.dumps({"layout": layout or {"form": FORM}}))
    entries = {name: [len(content), hashlib.sha256(content).hexdigest()] for name, content in files(folder).items()}
    (folder / FILES).write_text(json.dumps(entries))
    for done in range(len(run.rows("metrics")) + 1, step + 1):
        run.append("metrics", {"step": done})
    return folder


@pytest.mark.parametrize("form", [1, 2, 4])
def test_a_checkpoint_of_another_form_ends_a_resume_in_one_line(form: int, tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    run = reopened(cfg, data)
    add_checkpoint(run, 1, form=form)
    add_checkpoint(run, 2)
    reopened(cfg, data, resume=True)
    (run.checkpoint(2) / "trainer" / "state.json").write_text(json.dumps({"layout": {"form": form}}))
    before = files(run.path)
    message = rf"step_000002: got trainer state in the form {form}, expected {FORM}: [^\n]* model: [^\n]*$"
    with pytest.raises(DataError, match=message):
        reopened(cfg, data, resume=True)
    assert files(run.path) == before
    run.write("finished.json", {})
    reopened(cfg, data, resume=True)  # which will read no trainer state


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit of the weights": (lambda c: flipped(c / "model.safetensors"), r"model\.safetensors: got sha256 \w{64}, exp"),
    "a shorter file": (lambda c: (c / "model.safetensors").write_bytes(b"a"), r"model\.safetensors: got 1 bytes, exp"),
    "a missing file": (lambda c: (c / "model.safetensors").unlink(), r"model\.safetensors: got no such file, expected"),
    "another state": (lambda c: flipped(c / "trainer" / "state.json"), r"state\.json: got sha256"),
    "no list": (lambda c: (c / FILES).unlink(), r"files\.json: got no list of files"),
    "an empty list": (lambda c: (c / FILES).write_text(""), r"files\.json: got no list of files"),
    "a list without hashes": (lambda c: (c / FILES).write_text('{"config.json": 9}'), r"files\.json: got no list"),
    "no trainer state": (lambda c: shutil.rmtree(c / "trainer"), r"files\.json: got no list of files"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_can_be_asked_for(damage: str, tmp_path: Path, data: Path):
    do, said = DAMAGES[damage]
    cfg = config(tmp_path, data)
    run = reopened(cfg, data)
    add_checkpoint(run, 2)
    verify_checkpoint(add_checkpoint(run, 4))
    do(run.checkpoint(4))
    before = files(run.path)
    with pytest.raises(DataError, match=f"{said}.*; --resume --from-checkpoint 2 goes on from the one before$"):
        reopened(cfg, data, resume=True)
    assert files(run.path) == before
    with pytest.raises(DataError, match=r"--from-checkpoint: got 3, expected the step of .* go on from: 2(, 4)?$"):
        open_run(cfg, Origin(), Resume(checkpoint=3))
    open_run(cfg, Origin(), Resume(checkpoint=2))
    assert [c.name for c in run.checkpoints] == ["step_000002"]
    assert (run.path / "set_aside" / "step_000004").is_dir()
    [change] = json.loads((run.path / "lineage.json").read_text())["changes"]
    assert (change["step"], change["set_aside"]) == (2, ["set_aside/step_000004"])
    reopened(cfg, data, resume=True)


def test_metrics_that_a_checkpoint_counts_on_must_be_there(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    run = reopened(cfg, data)
    add_checkpoint(run, 3)
    run.append("metrics", {"step": 4})
    reopened(cfg, data, resume=True)
    for steps, missing in (([1, 2], 3), ([1, 3], 2), ([1, 2, 2, 3], 3), ([], 1)):
        run.write_lines("metrics.jsonl", [{"step": s} for s in steps])
        with pytest.raises(DataError, match=rf"metrics\.jsonl: got no line for step {missing} in its place"):
            reopened(cfg, data, resume=True)
    (run.path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: got a broken line"):
        reopened(cfg, data, resume=True)


@pytest.mark.parametrize("finished", [False, True])
def test_data_changed_in_place_is_refused_unless_it_is_asked_for(finished: bool, tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    run = reopened(cfg, data)
    if finished:
        run.write("finished.json", {"seconds": 1.0})
    was = sha256(data)
    data.write_text('{"messages": [1]}\n')
    before = files(run.path)
    with pytest.raises(DataError, match=f"^{data}: got {sha256(data)}, expected {was} as when .* began; --resume goes"):
        reopened(cfg, data, resume=True)
    assert files(run.path) == before
    open_run(cfg, Origin(data=fingerprint([cfg.data])), Resume((str(data),)))
    lineage = json.loads((run.path / "lineage.json").read_text())
    assert lineage["data"] == {str(data): sha256(data)}
    assert [c["changed"] for c in lineage["changes"]] == [{str(data): [was, sha256(data)]}]
    assert not (run.path / "finished.json").exists()
    reopened(cfg, data, resume=True)


def test_a_model_changed_in_place_is_refused(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch):
    model, cfg = tmp_path / "model", config(tmp_path, data)
    (model / "trainer").mkdir(parents=True)
    for name in ("config.json", "trainer/state.json", "README.md"):
        (model / name).write_text("{}")
    weights = model / "model.safetensors"
    weights.write_bytes((40).to_bytes(8, "little") + bytes(3 << 20))

    def begun(resume: Resume | None) -> Run:
        return open_run(cfg, Origin(models=hashes_of_models([str(model)])), resume)

    begun(None)
    (model / "trainer" / "state.json").unlink()  # as when its run has gone on
    begun(Resume())
    for content in (bytes(3 << 20), bytes((3 << 20) - 1), None):
        flipped(weights) if content == bytes(3 << 20) else weights.write_bytes(content) if content else weights.unlink()
        with pytest.raises(DataError, match=rf"^{weights}: got [\w ]+, expected \w{{64}} as when"):
            begun(Resume())
    weights.write_bytes((40).to_bytes(8, "little") + bytes(3 << 20))
    begun(Resume())
    monkeypatch.setattr("ringrl.launch.origin.WHOLE", 1 << 10)
    monkeypatch.setattr("ringrl.launch.origin.BLOCK", 1 << 10)
    [_, (_, sampled)] = hashes_of_models([str(model)]).items()
    weights.write_bytes((40).to_bytes(8, "little") + b"\1" * (3 << 20))  # other weights of the same size
    [_, (_, other)] = hashes_of_models([str(model)]).items()
    assert sampled != other
    assert sampled.endswith(" of 64 MiB in it")


def test_one_process_works_in_a_run_directory(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    program = "import sys\nfrom pathlib import Path\nfrom ringrl.launch.opening import exclusive\n"
    program += "with exclusive(Path(sys.argv[1])):\n    print('in', flush=True)\n    sys.stdin.read()\n"
    args = [sys.executable, "-c", program, cfg.run]
    with subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"in\n"
        who = rf"process {other.pid} on {socket.gethostname()} works in this run directory, expected one at a time"
        for resume in (None, Resume()):
            with pytest.raises(DataError, match=who), opened(cfg, Origin(), resume):
                pass
        other.kill()
        other.wait()
        with opened(cfg, Origin(), None), pytest.raises(DataError, match=f"process {os.getpid()} on "):
            exclusive(Path(cfg.run)).__enter__()
    with opened(cfg, Origin(), Resume()):
        pass


def test_the_children_of_a_killed_launcher_are_waited_for(tmp_path: Path):
    program = "import subprocess, sys\nfrom pathlib import Path\nfrom ringrl.launch.opening import exclusive\n"
    program += "with exclusive(Path(sys.argv[1])) as lock:\n"
    program += (
        "    child = subprocess.Popen(['sh', '-c', f'until [ -e {sys.argv[1]}/end ]; do :; done'], pass_fds=[lock])\n"
    )
    program += "    print('in', flush=True)\n    sys.stdin.read()\n"
    args = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout
        assert launcher.stdout.readline() == b"in\n"
        launcher.kill()
        launcher.wait()
        assert locked(tmp_path / ".lock") is None
        threading.Timer(0.3, (tmp_path / "end").touch).start()
        with exclusive(tmp_path) as lock:
            assert lock >= 0


def test_a_run_in_which_nothing_was_computed_is_begun_anew(tmp_path: Path, data: Path):
    run = reopened(config(tmp_path, data), data)
    (run.path / "logs" / "rank0.log").write_text("Traceback")
    (run.path / "responses").mkdir()
    (run.path / "responses" / "empty.jsonl").touch()
    (run.path / "report.html").write_text("<html>")  # a run that ends early gets one, too
    reopened(config(tmp_path, data, "seed=3"), data)
    assert yaml.safe_load((run.path / "config.yaml").read_text())["seed"] == 3
    (run.path / "responses" / "empty.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="exists; continue it with --resume"):
        reopened(config(tmp_path, data, "seed=4"), data)


def test_a_place_that_cannot_be_a_run_is_one_line(tmp_path: Path, data: Path):
    (tmp_path / "file").write_text("")
    for run, said in (
        (tmp_path / "file", "got a file, expected a folder"),
        (tmp_path / "file" / "run", "cannot be wri"),
    ):
        cfg = config(tmp_path, data, f"run={run}")
        with pytest.raises(DataError, match=f"^{run}: {said}"), opened(cfg, Origin(), None):
            pass


def test_what_may_change_on_demand_is_recorded(tmp_path: Path, data: Path):
    run = reopened(config(tmp_path, data), data)
    add_checkpoint(run, 2)
    run.write("finished.json", {})
    more = ("epochs=5", "optimizer.lr=1e-5", "save_every=3")
    cfg = resolve(SFTConfig, config(tmp_path, data).model_dump(), more, "x")
    with pytest.raises(DataError, match=r"optimizer\.lr was 0\.0003, now 1e-05; .* with --change optimizer\.lr=1e-05"):
        open_run(cfg, Origin(), Resume(("epochs=5", "save_every=3")))
    assert (run.path / "finished.json").is_file()
    open_run(cfg, Origin(), Resume(more))
    assert not (run.path / "finished.json").exists()
    [change] = json.loads((run.path / "lineage.json").read_text())["changes"]
    assert change["changed"] == {"epochs": [3, 5], "optimizer.lr": [0.0003, 1e-5], "save_every": [0, 3]}
    assert change["step"] == 2
    open_run(cfg, Origin(), Resume())
    open_run(cfg, Origin(), Resume(more))  # nothing that is new
    assert len(json.loads((run.path / "lineage.json").read_text())["changes"]) == 1
    with pytest.raises(DataError, match=r"seed was 0, now 3; --resume continues with the same configuration, but for"):
        open_run(cfg.model_copy(update={"seed": 3}), Origin(), Resume(("seed=3",)))


@pytest.mark.parametrize(
    ("step", "steps", "ahead", "fine"),
    [(3, (6, 4), 0, True), (3, (4, 4), 0, True), (3, (3, 4), 0, False), (4, (6, 4), 0, False), (3, (6, 4), 1, False),
     (6, (4, 9), 0, True), (6, (4, 2), 0, True), (7, (4, 2), 0, False), (8, (4, 9), 1, True)],
)  # fmt: skip
def test_only_stages_that_are_not_over_may_get_another_length(step: int, steps: list[int], ahead: int, fine: bool):
    def rl(lengths: Sequence[int]) -> RLConfig:
        stages = [{"name": str(i), "data": [{"files": ["a"]}], "steps": n} for i, n in enumerate(lengths)]
        raw = {"run": "r", "model": "m", "stages": stages, "max_staleness": ahead, "loss": {"old_logprobs": "sampler"}}
        return RLConfig.model_validate(raw)

    if fine:
        rl(steps).check_continues(rl([4, 4]), step)
    else:
        with pytest.raises(
            ValueError, match=rf"stages\.\d\.steps: got \d, expected 4: {step} steps of the run are done"
        ):
            rl(steps).check_continues(rl([4, 4]), step)


def test_an_existing_run_is_refused_without_resume_and_left_alone(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    run = reopened(cfg, data)
    run.append("metrics", {"step": 1})
    before = files(run.path)
    with pytest.raises(DataError, match="exists; continue it with --resume"):
        reopened(cfg, data)
    assert files(run.path) == before


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_killed_while_its_first_file_was_written_begins_again(resume: bool, tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    Path(cfg.run).mkdir(parents=True)
    (Path(cfg.run) / ".config.yaml.4711.part").write_text("run: ")
    reopened(cfg, data, resume)
    assert set(files(Path(cfg.run))) == {"config.yaml", "lineage.json"}


def test_what_a_killed_process_was_writing_is_gone_on_resume(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    run = reopened(cfg, data)
    add_checkpoint(run, 1)
    before = files(run.path)
    (run.path / "rollouts").mkdir()
    for name in (".lineage.json.4711.part", "rollouts/.step_000001.jsonl.4711.part"):
        (run.path / name).write_text("{")
    for name in (
        "checkpoints/.step_000002.part",
        "checkpoints/.step_000001.old",
        "checkpoints/step_000000/.trainer.old",
    ):
        (run.path / name / "trainer").mkdir(parents=True)
        (run.path / name / "model.safetensors").write_text("{")
    reopened(cfg, data, True)
    assert files(run.path) == before


def test_a_folder_of_something_else_is_refused_with_and_without_resume(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    Path(cfg.run).mkdir(parents=True)
    (Path(cfg.run) / "thesis.tex").write_text("years of work")
    for resume in (True, False):
        with pytest.raises(DataError, match="is not a run directory"):
            reopened(cfg, data, resume)
    assert files(Path(cfg.run)) == {"thesis.tex": b"years of work"}


def test_an_empty_folder_may_become_a_run(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    Path(cfg.run).mkdir(parents=True)
    assert (reopened(cfg, data).path / "config.yaml").is_file()


def test_resuming_changes_nothing_in_the_directory(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    before = files(reopened(cfg, data).path)
    assert files(reopened(cfg, data, resume=True).path) == before


def test_resuming_what_is_not_there_begins_it(tmp_path: Path, data: Path):
    assert (reopened(config(tmp_path, data), data, resume=True).path / "lineage.json").is_file()


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("seed=3", "seed was 0, now 3"),
        ("optimizer.lr=0.5", "optimizer.lr was 0.0003, now 0.5"),
        ("trainer.dtype=float32", "trainer.dtype was 'bfloat16', now 'float32'"),
        ("data.columns.problem=question", "data.columns.problem was None, now 'question'"),
    ],
)
def test_resuming_with_another_configuration_is_refused_naming_the_key(
    tmp_path: Path, data: Path, override: str, named: str
):
    run = reopened(config(tmp_path, data), data)
    before = files(run.path)
    with pytest.raises(DataError) as error:
        reopened(config(tmp_path, data, override), data, resume=True)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert files(run.path) == before


def test_how_a_run_is_computed_may_change_on_resuming(tmp_path: Path, data: Path):
    run = reopened(config(tmp_path, data), data)
    reopened(config(tmp_path, data, "trainer.ranks=2", "trainer.packing=false"), data, resume=True)
    trainer = yaml.safe_load((run.path / "config.yaml").read_text())["trainer"]
    assert (trainer["ranks"], trainer["packing"]) == (2, False)


def test_how_teachers_are_sampled_may_change_but_not_who_they_are(tmp_path: Path):
    def opened(*names: str, **rollout: Any) -> Run:
        teachers = [{"name": name, "model": f"/models/{name}", "rollout": rollout} for name in names]
        cfg = {"run": str(tmp_path), "sources": [{"name": "a", "files": ["a.jsonl"]}], "grade": {"teachers": teachers}}
        return open_run(DataConfig.model_validate(cfg), Origin(), Resume())

    opened("start", "strong")
    run = opened("start", "strong", workers=4)
    assert yaml.safe_load((run.path / "config.yaml").read_text())["grade"]["teachers"][1]["rollout"]["workers"] == 4
    with pytest.raises(DataError, match=r"grade\.teachers\[1\]\.name was 'strong', now 'other'"):
        opened("start", "other")
    with pytest.raises(DataError, match=r"grade\.teachers\[0\]\.rollout\.dtype was 'bfloat16', now 'float32'"):
        opened("start", "strong", dtype="float32")
    with pytest.raises(DataError, match=r"grade\.teachers was \["):
        opened("start")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"distil": {"verify": True}}, {"distil": {"verify": False}}, r"distil\.verify was True, now False"),
        ({"annotate": {"values": {"trainer": ["a", "b"]}}}, {"annotate": {"values": {"trainer": ["a", "c"]}}},
         r"annotate\.values\.trainer\[1\] was 'b', now 'c'"),
    ],
)  # fmt: skip
def test_what_only_has_the_name_of_such_a_section_may_not_change(
    before: dict[str, Any], after: dict[str, Any], said: str, tmp_path: Path
):
    raw = {"run": str(tmp_path), "sources": [{"name": "a", "files": ["a.jsonl"]}]}
    open_run(DataConfig.model_validate(raw | before), Origin(), None)
    with pytest.raises(DataError, match=said):
        open_run(DataConfig.model_validate(raw | after), Origin(), Resume())


def test_sections_of_a_pipeline_are_compared_as_the_configurations_that_they_are(tmp_path: Path):
    source = {"files": ["a.jsonl"]}
    sections = {"sft": {"data": source, "validation": source}, "select": {"probe": source},
                "rl": {"stages": [{"name": "math", "data": [source], "steps": 1}]},
                "eval": {"benchmarks": [{"name": "aime24"}]}}  # fmt: skip

    def opened(*overrides: str, **more: Any) -> Run:
        raw = json.loads(json.dumps({"run": str(tmp_path), "model": "m", **sections, **more}))
        return open_run(resolve(PipelineConfig, raw, overrides, "x"), Origin(), Resume())

    opened()
    run = opened("rl.rollout.workers=4", "select.verify.deadline_s=9", "sft.epochs=3")  # the default
    assert yaml.safe_load((run.path / "config.yaml").read_text())["rl"]["rollout"] == {"workers": 4}
    with pytest.raises(DataError, match=r"rl\.rollout\.dtype was 'bfloat16', now 'float32'"):
        opened("rl.rollout.dtype=float32")
    with pytest.raises(DataError, match=r"sft\.epochs was 3, now 2"):
        opened("sft.epochs=2")
    with pytest.raises(DataError, match=r"general\.run was None, now "):
        opened(general=sections["sft"])


@pytest.mark.parametrize(
    ("last", "best", "gone"),
    [(0, 0, []), (1, 0, [2, 6, 8]), (2, 0, [2, 6]), (1, 1, [6, 8]), (2, 2, []), (9, 0, [])],
)
def test_which_checkpoints_are_forgotten(last: int, best: int, gone: list[int]):
    """Step 4 ends a stage; 2 has the best score, and 6 the next."""
    scores = {2: 0.9, 4: 0.1, 6: 0.5}
    assert forgettable([2, 4, 6, 8, 10], last, best, scores, [4]) == gone


def make_lines(run: Run) -> None:
    run.path.mkdir(exist_ok=True)
    for step in range(1, 7):
        run.append("metrics", {"step": step, "loss": 1 / step})
        run.write_lines(f"rollouts/step_{step:06d}.jsonl", [{"prompt_id": "a"}])
        (run.path / "rollouts" / f"step_{step:06d}.npz").touch()
    for step in (0, 3, 6):
        for domain in ("math", "code"):
            run.append("evals", {"step": step, "domain": domain})


def test_rewinding_drops_what_came_after_and_nothing_else(tmp_path: Path):
    run, whole = Run(tmp_path / "a"), Run(tmp_path / "b")
    make_lines(run)
    make_lines(whole)
    run.rewind(4)
    assert run.rows("metrics") == whole.rows("metrics")[:4]
    assert run.rows("evals") == whole.rows("evals")[:4]
    assert [p.name for p in sorted((run.path / "rollouts").iterdir())] == [
        f"step_{i:06d}.{kind}" for i in range(1, 5) for kind in ("jsonl", "npz")
    ]


def test_a_rewound_run_that_goes_on_reads_as_if_nothing_had_happened(tmp_path: Path):
    run, whole = Run(tmp_path / "a"), Run(tmp_path / "b")
    make_lines(run)
    make_lines(whole)
    run.rewind(4)
    for step in (5, 6):
        run.append("metrics", {"step": step, "loss": 1 / step})
    assert (run.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()


def test_rewinding_to_the_end_or_with_nothing_there_changes_nothing(tmp_path: Path):
    run = Run(tmp_path / "a")
    make_lines(run)
    before = files(run.path)
    run.rewind(6)
    assert files(run.path) == before
    (tmp_path / "empty").mkdir()
    Run(tmp_path / "empty").rewind(0)
    assert files(tmp_path / "empty") == {}


@pytest.mark.parametrize("kept", [1, 10, 18])
def test_a_last_line_that_was_cut_off_is_dropped_and_the_rest_survives(tmp_path: Path, kept: int):
    run = Run(tmp_path)
    make_lines(run)
    with (tmp_path / "metrics.jsonl").open("a") as f:
        f.write('{"step": 7, "loss": 0.14}'[:kept])
    assert [r["step"] for r in run.rows("metrics")] == [1, 2, 3, 4, 5, 6]
    run.rewind(6)
    run.append("metrics", {"step": 7, "loss": 0.5})
    assert [r["step"] for r in run.rows("metrics")] == [1, 2, 3, 4, 5, 6, 7]


def test_a_broken_line_in_the_middle_is_not_passed_over(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: got a broken line"):
        Run(tmp_path).rows("metrics")


def test_lines_hold_any_text(tmp_path: Path):
    row = {"step": 1, "text": 'line\u2028separator\nnew\x0bline "quoted" 日本'}
    Run(tmp_path).append("metrics", row)
    assert Run(tmp_path).rows("metrics") == [row]


def test_checkpoints_are_listed_in_order_and_only_the_newest_keep_trainer_state(tmp_path: Path):
    run = Run(tmp_path)
    for step in (20, 100, 3):
        (run.checkpoint(step) / "trainer").mkdir(parents=True)
        (run.checkpoint(step) / "config.json").write_text("{}")
    assert [p.name for p in run.checkpoints] == ["step_000003", "step_000020", "step_000100"]
    for resumable, kept in ((3, [True, True, True]), (2, [False, True, True]), (1, [False, False, True])):
        run.tidy(resumable)
        assert [(p / "trainer").is_dir() for p in run.checkpoints] == kept
    assert all((p / "config.json").is_file() for p in run.checkpoints)


def test_writing_leaves_no_parts_behind(tmp_path: Path):
    run = Run(tmp_path)
    for value in ({"a": 1}, {"a": 2}):
        run.write("selection.json", value)
    assert files(tmp_path) == {"selection.json": b'{\n  "a": 2\n}\n'}


def test_progress_speaks_json_to_a_launcher_and_lines_to_a_person(capsys: pytest.CaptureFixture[str]):
    stream = io.StringIO()
    numbers: dict[str, Any] = {"loss": 0.123456, "tokens": 12345.6, "stage": "math"}
    for progress in (Progress(stream), Progress(None)):
        progress.phase("rollout", 1, 2)
        progress.step(3, 10, numbers)
        progress.note("saved")
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [e["kind"] for e in events] == ["phase", "step", "note"]
    assert events[1]["numbers"] == numbers
    assert capsys.readouterr().out == "step 3/10  loss 0.123  tokens 12,346  stage math\nsaved\n"


def test_the_written_configuration_reads_back_as_itself(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data, "optimizer.lr=1e-7", "prompting.system='Φ: yes\n no'")
    assert SFTConfig.model_validate(yaml.safe_load(dump(cfg))) == cfg
