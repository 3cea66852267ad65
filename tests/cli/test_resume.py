"""Going on with a run through the command line: what is kept, what is refused, and what may change on demand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_sft import sft_config
from tests.conftest import ENVIRONMENT, Inputs, lines, ringrl, until, write_yaml


class Server(ThreadingHTTPServer):
    """Answers so many requests, and refuses the others."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.left, self.lock = 0, threading.Lock()

    def grants(self) -> bool:
        with self.lock:
            self.left -= 1
            return self.left >= 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"message": {"content": "The answer is \\boxed{3}"}, "finish_reason": "stop"}
        status, reply = 200, json.dumps({"choices": [choice], "usage": {"completion_tokens": 7}}).encode()
        if not self.server.grants():
            status, reply = 403, b"quota exceeded"
        self.send_response(status)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_answers_of_a_server_that_refuses_the_rest_are_kept(server: Server, tmp_path: Path) -> None:
    bench = tmp_path / "bench.jsonl"
    rows = [{"id": f"p{i}", "domain": "math", "problem": f"What is {i} + 0?", "answer": f"{i}"} for i in range(20)]
    bench.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, url = tmp_path / "run", f"http://127.0.0.1:{server.server_address[1]}/v1"
    config = write_yaml(tmp_path / "eval.yaml", {
        "run": str(run), "model": "served", "benchmarks": [{"name": "mine", "data": str(bench), "samples": 2}],
        "server": {"base_url": url, "concurrent": 4, "retries": 0}, "verify": {"workers": 1},
    })  # fmt: skip
    refused = ringrl("eval", config)  # the first request of all: nothing is lost, and the directory is gone
    assert (refused.code, run.exists()) == (2, False), refused.text
    server.left = 13
    refused = ringrl("eval", config)
    assert refused.code == 2
    assert "status 403: quota exceeded" in refused.text
    kept = {(row["id"], row["sample"]) for row in lines(run / "responses" / "mine.jsonl")}
    assert len(kept) == 13
    server.left = 40 - 13  # and not one more
    done = ringrl("eval", config, "--resume")
    assert done.code == 0, done.text
    assert len(lines(run / "responses" / "mine.jsonl")) == 40


@pytest.mark.slow
def test_a_finished_run_goes_on_for_longer_and_from_an_older_checkpoint(inputs: Inputs, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = write_yaml(tmp_path / "sft.yaml", sft_config(inputs, run, batch_examples=64, epochs=1, save_every=2))
    assert (done := ringrl("sft", config)).code == 0, done.text
    more = ["--resume", "--change", "epochs=2", "--change", "optimizer.lr=1e-3"]
    assert "epochs was 1, now 2; --resume" in ringrl("sft", config, "--resume", "epochs=2").text
    assert (done := ringrl("sft", config, *more)).code == 0, done.text
    rows = lines(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert rows[4]["lr"] < 1e-3 < rows[1]["lr"]
    [change] = json.loads((run / "lineage.json").read_text())["changes"]
    assert (change["step"], change["changed"]) == (4, {"epochs": [1, 2], "optimizer.lr": [3e-3, 1e-3]})
    (run / "finished.json").unlink()
    weights = run / "checkpoints" / "step_000008" / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    refused = ringrl("sft", config, *more)
    assert refused.code == 2
    assert f"{weights}: got sha256 " in refused.text
    assert "--resume --from-checkpoint 6 goes on from the one before" in refused.text
    assert (done := ringrl("sft", config, *more, "--from-checkpoint", "6")).code == 0, done.text
    assert weights.read_bytes() == before


def test_a_second_process_is_told_of_the_first(inputs: Inputs, tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "sft.yaml", sft_config(inputs, tmp_path / "run"))
    args = [sys.executable, "-m", "ringrl", "sft", str(config)]
    with subprocess.Popen(args, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True) as first:
        until(lambda: (tmp_path / "run" / "lineage.json").is_file())
        os.kill(first.pid, signal.SIGSTOP)
        for more in ([], ["--resume"]):
            second = ringrl("sft", config, *more)
            assert second.code == 2, second.text
            assert f"process {first.pid} on " in second.text
        first.kill()


def test_changes_without_resume_are_a_mistake(tmp_path: Path) -> None:
    config = write_yaml(tmp_path / "x.yaml", {})
    result = ringrl("sft", config, "--change", "epochs=2")
    assert result.code == 2
    assert "--change and --from-checkpoint go with --resume" in result.text
    unknown: Any = ringrl("eval", config, "--resume", "--change", "samples=2")
    assert "No such option" in unknown.text
