"""What a worker asks of its engine, and in which order: the engine here writes down what it is asked for."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm")

import vllm

from ringrl.rollout import vllm_worker
from ringrl.rollout.channel import Listener, bound, connect

SPEC = {"shared": True, "in_flight": False, "update_deadline_s": 60, "routes": False}
SAMPLING = {"samples": 2, "temperature": 1.0, "top_p": 1.0, "max_total_tokens": 8}


class Recorder:
    """A vLLM that has no model. Each request gets one token in the step after it came, and is finished."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.params: dict[str, vllm.SamplingParams] = {}
        self.waiting: list[str] = []
        self.under_way: list[str] = []
        self.cache_is_reset = True
        self.llm_engine = self
        self.engine_core = SimpleNamespace(engine_core=SimpleNamespace(batch_queue=self.under_way))

    def __getattr__(self, name: str) -> Any:
        def called(*args: Any, **kwargs: Any) -> None:
            words = [str(a) for a in [*args, *kwargs.values()] if isinstance(a, str | int | list | tuple)]
            self.asked.append(" ".join([name, *words]))

        return called

    def reset_prefix_cache(self, reset_running_requests: bool) -> bool:
        self.asked.append(f"reset_prefix_cache {reset_running_requests}")
        return self.cache_is_reset

    def add_request(self, key: str, prompt: dict[str, Any], params: vllm.SamplingParams, priority: int) -> None:
        self.params[key] = params
        self.waiting.append(key)

    def step(self) -> list[Any]:
        """As an engine that schedules ahead: a batch begins before the output of the one before is taken."""
        done, self.under_way[:] = list(self.under_way), self.waiting or (["nothing"] if self.under_way else [])
        self.under_way[:] = self.under_way if done != ["nothing"] else []
        self.waiting = []
        logprobs = SimpleNamespace(logprobs=[-1.0])
        output = SimpleNamespace(token_ids=[5], logprobs=logprobs, finish_reason="stop", routed_experts=None)
        return [SimpleNamespace(request_id=k, outputs=[output], finished=True) for k in done if k != "nothing"]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> tuple[vllm_worker.Worker, Recorder]:
    return started(monkeypatch)


def started(monkeypatch: pytest.MonkeyPatch) -> tuple[vllm_worker.Worker, Recorder]:
    """As on a GPU that it shares with a rank."""
    monkeypatch.setattr(vllm_worker.current_platform, "is_cpu", lambda: False, raising=False)
    monkeypatch.setattr(vllm_worker, "load", lambda spec, sleeps: Recorder())
    worker = vllm_worker.Worker(SPEC)
    assert worker.sleeps
    recorder: Any = worker.llm
    recorder.asked.clear()
    return worker, recorder


def ask(worker: vllm_worker.Worker, *messages: tuple) -> list[Any]:
    """Sends these on the weights line and returns all answers."""
    sock = bound("127.0.0.1", 0)
    listener = Listener(sock, b"key", 1)
    [controller] = connect(f"127.0.0.1:{sock.getsockname()[1]}", b"key", 1)
    [served] = listener.accept()
    for message in messages:
        controller.send(message)
    worker.requests = worker.weights = served
    ended = threading.Thread(target=lambda: [worker.answer(served) for _ in messages])
    ended.start()
    answers = []
    while len([a for a in answers if a[0] != "part"]) < len(messages):
        answers.append(controller.receive(60))
    ended.join()
    controller.close()
    served.close()
    return answers


def test_a_worker_that_shares_its_gpu_wakes_for_weights_first_and_for_its_cache_last(worker: Any) -> None:
    worker, recorder = worker
    bucket = ("bucket", [["a", "float32", [1]]], {"cpu": "handle"})
    update = [("begin",), bucket, bucket, ("finish", 1)]
    asked = ["wake_up ['weights']", "start_weight_update", "update_weights", "update_weights",
             "finish_weight_update 1", "wake_up ['kv_cache']", "reset_prefix_cache False"]  # fmt: skip
    assert ask(worker, ("rest",), *update, ("rest",), *update) == [["done"]] * 10
    assert recorder.asked == ["sleep 2", *asked, "sleep 2", *asked]


def test_a_cache_that_was_not_reset_ends_the_worker(worker: Any) -> None:
    worker, recorder = worker
    recorder.cache_is_reset = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", lambda args: None)  # of the thread that stands for its process
        [(kind, text)] = ask(worker, ("finish", 1))
    assert kind == "failed"
    assert "prefix cache" in text
    assert worker.version == 0


def seeds(answerer: tuple[Any, Recorder], indices: list[int], seed: int, stream: int) -> dict[int, list[int | None]]:
    """By index of the group: the seeds of the two completions that a worker was asked for."""
    worker, recorder = answerer
    recorder.params.clear()
    requests = [(i, np.array([1, 2], np.int32), [], None) for i in indices]
    parts = ask(worker, ("generate", requests, SAMPLING, seed, stream, 0))
    assert [p[0] for p in parts] == ["part"] * 2 * len(indices) + ["done"]
    found = [p.seed for p in recorder.params.values()]
    return {i: found[2 * n : 2 * n + 2] for n, i in enumerate(indices)}


def test_seeds_depend_on_the_batch_and_the_place_in_it_and_on_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = seeds(started(monkeypatch), [0, 2, 4], 7, 0), seeds(started(monkeypatch), [1, 3], 7, 1)
    both = [s for own in [*first.values(), *second.values()] for s in own]
    assert len(set(both)) == 10
    assert all(s is not None and 0 <= s < 1 << 31 for s in both)
    assert seeds(started(monkeypatch), [2, 1], 7, 1) == {2: first[2], 1: second[1]}  # restarted; others beside it
    assert seeds(started(monkeypatch), [0], 8, 0)[0] != first[0]


def test_on_a_cpu_a_worker_has_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = []
    for stream in (0, 1, 0):
        worker, recorder = started(monkeypatch)
        monkeypatch.setattr(vllm_worker.current_platform, "is_cpu", lambda: True, raising=False)
        assert seeds((worker, recorder), [0], 7, stream) == {0: [None, None]}
        streams.append([a for a in recorder.asked if "seed_sampling" in a])
    assert streams[0] == streams[2] != streams[1]


def test_nothing_is_under_way_when_a_generation_is_done(worker: Any) -> None:
    worker, recorder = worker
    for _ in range(2):
        seeds((worker, recorder), [0, 1], 3, 0)
        assert recorder.under_way == []


@pytest.mark.parametrize(("in_flight", "ahead"), [(True, False), (False, None)])
def test_with_updates_in_flight_the_engine_does_not_schedule_ahead(
    in_flight: bool, ahead: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: dict[str, Any] = {}
    monkeypatch.setattr(vllm, "LLM", lambda **kwargs: got.update(kwargs))
    monkeypatch.setattr(vllm_worker, "keeps_state", lambda config: False)
    monkeypatch.setattr(vllm_worker, "read_config", lambda model: {})
    spec = {"model": "m", "dtype": "float32", "max_total_tokens": 8, "concurrent": 1, "tensor_parallel": 1,
            "gpu_memory": 0.5, "kv_cache_mib": 0, **SPEC}  # fmt: skip
    vllm_worker.load({**spec, "in_flight": in_flight}, False)
    assert got["async_scheduling"] is ahead
