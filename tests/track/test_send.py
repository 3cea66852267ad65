"""What arrives in each tracker, read back from it; those that are not installed are skipped."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringrl.track.feed import numbers_of

STEPS = range(1, 6)
Points = Counter[tuple[str, int, float]]


def lay(run: Path, steps: range = STEPS, loss: float = 1.0) -> Path:
    """A run directory with rows as `ringrl rl` writes them."""
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text("run: r\nmodel: m\nstages: [{name: math}]\noptimizer: {lr: 0.5}\n")
    rows = [{"step": s, "stage": "math", "loss": loss / s, "rewards": {"a": 0.5}, "errors_of_problems": {"p": 1}}
            for s in steps]  # fmt: skip
    write(run / "metrics.jsonl", rows)
    write(run / "evals.jsonl", [{"step": s, "domain": d, "avg": s / 8} for s in (0, *steps) for d in ("math", "code")])
    return run


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    part = file.with_suffix(".part")
    part.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.replace(part, file)


def rows(run: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / f"{kind}.jsonl").read_text().splitlines()]


def expected(run: Path) -> Points:
    return Counter((key, row["step"], round(value, 5)) for kind in ("metrics", "evals") for row in rows(run, kind)
                   for key, value in numbers_of(kind, row).items())  # fmt: skip


def from_tensorboard(run: Path, home: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    return Counter((key, e.step, round(e.value, 5)) for key in read.Tags()["scalars"] for e in read.Scalars(key))


def from_wandb(run: Path, home: Path) -> Points:
    """All offline folders of the newest record, as `wandb sync` would send them."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, Points] = {}
    for file in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        points = found.setdefault(file.stem, Counter())
        for data in log_records(file.read_bytes()):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
                points.update(
                    (k, row["step"], round(v, 5)) for k, v in row.items() if k.startswith(("train/", "eval/"))
                )
    return found[max(found, key=lambda stem: (len(stem), stem))]


def log_records(data: bytes) -> Iterator[bytes]:
    """Of a file in LevelDB's log format, in which W&B's begin with 7 bytes of their own: blocks of 32 KiB with parts of
    records, each after its checksum, length and kind (1: whole, 2: first, 3: middle, 4: last)."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def from_trackio(run: Path, home: Path) -> Points:
    database = sqlite3.connect(home / "trackio" / "ringrl.db")
    points: Points = Counter()
    for step, text in database.execute("select step, metrics from metrics"):
        points.update((k, step, round(v, 5)) for k, v in json.loads(text).items())
    return points


def from_mlflow(run: Path, home: Path) -> Points:
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("ringrl")
    assert experiment
    [found] = client.search_runs([experiment.experiment_id])
    assert found.data.params["optimizer/lr"] == "0.5"
    return Counter((m.key, m.step, round(m.value, 5)) for key in found.data.metrics
                   for m in client.get_metric_history(found.info.run_id, key))  # fmt: skip


READERS = {"tensorboard": from_tensorboard, "wandb": from_wandb, "trackio": from_trackio, "mlflow": from_mlflow}


@pytest.fixture(params=READERS)
def tracker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return str(request.param)


def track(*args: str | Path) -> str:
    done = subprocess.run([sys.executable, "-m", "ringrl", "track", *map(str, args)], text=True, timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_every_row_is_there_once_however_often_and_after_rows_were_taken_back(tracker: str, tmp_path: Path) -> None:
    run, read = lay(tmp_path / "run", range(1, 4)), READERS[tracker]
    assert f"{tracker}: 11 rows sent" in track(run, "--to", tracker)
    assert read(run, tmp_path) == expected(run)
    lay(run)  # the run goes on: the record does, too
    assert f"{tracker}: 6 rows sent" in track(run, "--to", tracker)
    assert f"{tracker}: 0 rows sent" in track(run, "--to", tracker)
    assert read(run, tmp_path) == expected(run)
    lay(run, loss=3.0)  # other rows in the place of those: another record
    assert f"{tracker}: 17 rows sent" in track(run, "--to", tracker)
    assert read(run, tmp_path) == expected(run)


def test_a_record_whose_writer_was_killed_is_written_again(tracker: str, tmp_path: Path) -> None:
    run = lay(tmp_path / "run")
    track(run, "--to", tracker)
    state = run / "track" / f"{tracker}.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "open": True, "held": {}}))
    assert "17 rows sent" in track(run, "--to", tracker)
    assert READERS[tracker](run, tmp_path) == expected(run)


RECORDER = """
import json
class Recorder:
    def __init__(self, run, name, record, config):
        self.out = open(run / f"{record}.txt", "a")
    def log(self, step, numbers):
        print(json.dumps([step, numbers]), file=self.out, flush=True)
    def close(self):
        self.out.close()
"""


def recorded(run: Path) -> list[Points]:
    """By record, oldest first."""
    files = sorted(run.glob("run-*.txt"), key=lambda f: (len(f.name), f.name))
    read = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    return [Counter((k, step, round(v, 5)) for step, numbers in r for k, v in numbers.items()) for r in read]


def test_follow_goes_on_to_the_end_of_the_run_with_what_is_taken_back(tmp_path: Path) -> None:
    from ringrl.track.send import send

    run = lay(tmp_path / "run", range(1, 4))
    (tmp_path / "mine.py").write_text(RECORDER)
    half_a_row = '{"step": 4, "lo'

    def cut() -> None:
        with (run / "metrics.jsonl").open("a") as f:
            f.write(half_a_row)

    def finish() -> None:
        (run / "finished.json").write_text("{}")

    happens: list[Callable[[], object]] = [
        cut,
        lambda: lay(run),
        lambda: lay(run, range(1, 3)),
        lambda: lay(run),
        finish,
    ]

    def more() -> bool:
        happens.pop(0)()
        return True

    send(run, f"{tmp_path}/mine.py:Recorder", more)
    assert recorded(run)[-1] == expected(run)
    assert len(recorded(run)) == 2


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (
            ["run", "--to", "tensorbord"],
            "--to: got 'tensorbord', expected one of tensorboard, wandb, trackio, mlflow, ",
        ),
        (["run", "--to", "gone.py:A"], "track: got gone.py:A: no such file: gone.py"),
        (["run"], "--to: got none, expected at least one"),
        (["run", "--to", "a:B", "--to", "c:D", "--follow"], "--to: got a:B, c:D, expected one"),
        (["nowhere", "--to", "wandb"], "nowhere: no config.yaml in it"),
    ],
)
def test_bad_input(args: list[str], text: str, tmp_path: Path) -> None:
    lay(tmp_path / "run")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-m", "ringrl", "track", *args], cwd=tmp_path, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    assert done.returncode == 2
    assert text in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_neither_torch_nor_a_tracker_is_imported_to_send() -> None:
    code = ("import sys, ringrl.cli, ringrl.track.send, ringrl.track.child\n"
            "print({'torch', 'vllm', 'transformers', 'datasets', 'deepspeed', 'wandb', 'tensorboard', 'mlflow', "
            "'trackio'} & {*sys.modules})")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_tracker_that_hangs_does_not_outlive_a_killed_launcher(tmp_path: Path) -> None:
    run, mine = lay(tmp_path / "run"), tmp_path / "mine.py"
    mine.write_text("import time\nclass Hangs:\n    def __init__(self, *args):\n        time.sleep(3600)\n")
    code = "import sys; from ringrl.track import child; child.CLOSE_S = 1; child.main(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(run), f"{mine}:Hangs"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60, check=False)
    assert done.returncode == -signal.SIGALRM
