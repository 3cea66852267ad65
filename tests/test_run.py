"""The run directory: never overwritten, continued only with the same configuration, and reads as if unbroken."""

from __future__ import annotations

import hashlib
import io
import json
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
from ringrl.run import FORM, Progress, Run, forgettable, open_run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"messages": []}\n')
    return file


def config(tmp_path: Path, data: Path, *overrides: str) -> SFTConfig:
    source = {"files": [str(data)]}
    raw = {"run": str(tmp_path / "runs" / "one"), "model": "m", "data": source, "validation": source}
    return resolve(SFTConfig, raw, overrides, "x")


def opened(cfg: SFTConfig | RLConfig, data: Path, resume: bool = False) -> Run:
    return open_run(cfg, cfg.model, fingerprint([Source(files=(str(data),))]), resume)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_new_run_holds_its_configuration_and_where_it_comes_from(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    run = opened(cfg, data)
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
    run = opened(config(tmp_path, data), data)
    command = json.loads((run.path / "lineage.json").read_text())["command"]
    assert command == "ringrl sft 'x=http://***@h/?api_key=***&y=1' ***"


def test_hidden_characters_of_a_configuration_are_escaped_and_read_back(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data, "prompting.system='Größe \u202e \u200b'")
    text = (opened(cfg, data).path / "config.yaml").read_text()
    assert "\u202e" not in text
    assert SFTConfig.model_validate(yaml.safe_load(text)) == cfg


@pytest.mark.parametrize("layout", [{}, {"form": 1}, {"form": 3}])
def test_a_checkpoint_of_another_form_ends_a_resume_in_one_line(layout: dict[str, int], tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    run = opened(cfg, data)
    for step, known in ((1, layout), (2, {"form": FORM})):
        (run.checkpoint(step) / "trainer").mkdir(parents=True)
        (run.checkpoint(step) / "trainer" / "state.json").write_text(json.dumps({"layout": known}))
    opened(cfg, data, resume=True)
    state = run.checkpoint(2) / "trainer" / "state.json"
    state.write_text(json.dumps({"layout": layout}))
    before = files(run.path)
    message = rf"step_000002: got trainer state in the form {layout.get('form', 1)}, expected 2: [^\n]* model: [^\n]*$"
    with pytest.raises(DataError, match=message):
        opened(cfg, data, resume=True)
    assert files(run.path) == before
    run.write("finished.json", {})
    opened(cfg, data, resume=True)  # which will read no trainer state


def test_an_existing_run_is_refused_without_resume_and_left_alone(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    run = opened(cfg, data)
    run.append("metrics", {"step": 1})
    before = files(run.path)
    with pytest.raises(DataError, match="exists; continue it with --resume"):
        opened(cfg, data)
    assert files(run.path) == before


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_killed_while_its_first_file_was_written_begins_again(resume: bool, tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    Path(cfg.run).mkdir(parents=True)
    (Path(cfg.run) / ".config.yaml.4711.part").write_text("run: ")
    opened(cfg, data, resume)
    assert set(files(Path(cfg.run))) == {"config.yaml", "lineage.json"}


def test_what_a_killed_process_was_writing_is_gone_on_resume(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    run = opened(cfg, data)
    before = files(run.path)
    (run.path / "rollouts").mkdir()
    for name in (".lineage.json.4711.part", "rollouts/.step_000001.jsonl.4711.part"):
        (run.path / name).write_text("{")
    for name in ("checkpoints/.step_000002.part", "checkpoints/.step_000001.old"):
        (run.path / name / "trainer").mkdir(parents=True)
        (run.path / name / "model.safetensors").write_text("{")
    opened(cfg, data, True)
    assert files(run.path) == before


def test_a_folder_of_something_else_is_refused_with_and_without_resume(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    Path(cfg.run).mkdir(parents=True)
    (Path(cfg.run) / "thesis.tex").write_text("years of work")
    for resume in (True, False):
        with pytest.raises(DataError, match="is not a run directory"):
            opened(cfg, data, resume)
    assert files(Path(cfg.run)) == {"thesis.tex": b"years of work"}


def test_an_empty_folder_may_become_a_run(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    Path(cfg.run).mkdir(parents=True)
    assert (opened(cfg, data).path / "config.yaml").is_file()


def test_resuming_changes_nothing_in_the_directory(tmp_path: Path, data: Path):
    cfg = config(tmp_path, data)
    before = files(opened(cfg, data).path)
    assert files(opened(cfg, data, resume=True).path) == before


def test_resuming_what_is_not_there_begins_it(tmp_path: Path, data: Path):
    assert (opened(config(tmp_path, data), data, resume=True).path / "lineage.json").is_file()


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
    run = opened(config(tmp_path, data), data)
    before = files(run.path)
    with pytest.raises(DataError) as error:
        opened(config(tmp_path, data, override), data, resume=True)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert files(run.path) == before


def test_how_a_run_is_computed_may_change_on_resuming(tmp_path: Path, data: Path):
    run = opened(config(tmp_path, data), data)
    opened(config(tmp_path, data, "trainer.ranks=2", "trainer.packing=false"), data, resume=True)
    trainer = yaml.safe_load((run.path / "config.yaml").read_text())["trainer"]
    assert (trainer["ranks"], trainer["packing"]) == (2, False)


def test_how_teachers_are_sampled_may_change_but_not_who_they_are(tmp_path: Path):
    def opened(*names: str, **rollout: Any) -> Run:
        teachers = [{"name": name, "model": f"/models/{name}", "rollout": rollout} for name in names]
        cfg = {"run": str(tmp_path), "sources": [{"name": "a", "files": ["a.jsonl"]}], "grade": {"teachers": teachers}}
        return open_run(DataConfig.model_validate(cfg), "", {}, resume=True)

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
    open_run(DataConfig.model_validate(raw | before), "", {}, resume=False)
    with pytest.raises(DataError, match=said):
        open_run(DataConfig.model_validate(raw | after), "", {}, resume=True)


def test_sections_of_a_pipeline_are_compared_as_the_configurations_that_they_are(tmp_path: Path):
    source = {"files": ["a.jsonl"]}
    sections = {"sft": {"data": source, "validation": source}, "select": {"probe": source},
                "rl": {"stages": [{"name": "math", "data": [source], "steps": 1}]},
                "eval": {"benchmarks": [{"name": "aime24"}]}}  # fmt: skip

    def opened(*overrides: str, **more: Any) -> Run:
        raw = json.loads(json.dumps({"run": str(tmp_path), "model": "m", **sections, **more}))
        return open_run(resolve(PipelineConfig, raw, overrides, "x"), "", {}, resume=True)

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
    assert [p.name for p in sorted((run.path / "rollouts").iterdir())] == [f"step_{i:06d}.jsonl" for i in range(1, 5)]


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


def test_checkpoints_are_listed_in_order_and_only_the_newest_keeps_trainer_state(tmp_path: Path):
    run = Run(tmp_path)
    for step in (20, 100, 3):
        (run.checkpoint(step) / "trainer").mkdir(parents=True)
        (run.checkpoint(step) / "config.json").write_text("{}")
    assert [p.name for p in run.checkpoints] == ["step_000003", "step_000020", "step_000100"]
    run.tidy()
    assert [(p / "trainer").is_dir() for p in run.checkpoints] == [False, False, True]
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
