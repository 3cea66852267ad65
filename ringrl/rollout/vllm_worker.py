"""A vLLM worker: one process that hosts an engine and serves one controller.

Started by `ringrl.launch.crew` calling `main` (never as `__main__`: vLLM imports this module by name too), with its
specification as one JSON line on standard input. It listens on a port, writes the address to a file, and takes two
channels, for requests and for weights. The second is answered between any two decoding steps of the first:

    ("generate", requests, sampling, seed, stream, enough) on either
                 -> ("part", index, place, Piece fields) ..., ("done",)
    ("join", meeting, rank, size)          -> ("done",)       joins the weight transfer group
    ("begin",)  ("bucket", specs, handles)...  ("finish", version)    each -> ("done",): new weights, in place
    ("rest",)                              -> ("done",)       frees the device's memory until the next "begin"
    ("cache",)                             -> ("part", tokens it holds, concurrent, max_total_tokens) if any, ("done",)
    ("close",)                             -> exit
A failure is answered with ("failed", traceback) and ends the worker.
"""

from __future__ import annotations

import json
import sys
import traceback
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import vllm
from vllm.config import WeightTransferConfig
from vllm.distributed.weight_transfer import WeightTransferEngineFactory
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.platforms import current_platform
from vllm.utils.torch_utils import set_random_seed

import ringrl.models.bailing_moe  # noqa: F401  (vLLM asks AutoConfig for the configuration)
from ringrl.lines import write_atomic
from ringrl.models.families import keeps_state
from ringrl.models.folder import read_config
from ringrl.rollout.channel import Channel, Listener, bound, ready
from ringrl.rollout.engine import seed_of
from ringrl.rollout.transfer import TensorSpec, TransferGroup, map_shared, unflatten
from ringrl.rollout.vllm_internals import (  # (importing it corrects updates of experts on the CPU)
    check_taken,
    repack_heads,
    under_way,
)

BACKEND = "ringrl"


@dataclass
class Join(WeightTransferInitInfo):
    meeting: dict[str, Any]  # TransferGroup's
    rank: int  # rank of the worker's first engine process
    size: int
    deadline_s: float


@dataclass
class Incoming(WeightTransferUpdateInfo):
    tensors: list[list[Any]]  # TensorSpec fields
    handles: dict[str, str]  # how to map the bucket; empty: it is broadcast


class BucketEngine(WeightTransferEngine[Join, Incoming]):
    """vLLM's weight-transfer life cycle over `ringrl.rollout.transfer`, on CPU and GPU alike."""

    init_info_cls = Join
    update_info_cls = Incoming

    def init_transfer_engine(self, init_info: Join) -> None:
        rank = init_info.rank + self.parallel_config.rank
        self.group = TransferGroup(init_info.meeting, rank, init_info.size, self.device, init_info.deadline_s)

    def start_weight_update(self) -> None:
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: Incoming) -> None:
        tensors = [TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in update_info.tensors]
        if update_info.handles:
            arrived = unflatten(map_shared(update_info.handles, self.device, tensors), tensors)
        else:
            arrived = self.group.receive(tensors)
        self.model.load_weights(arrived)  # at once: each call walks the whole model
        if self.device.type != "cpu":
            torch.accelerator.synchronize()  # whoever shares the bucket may write the next one over it

    def finish_weight_update(self) -> None:
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        check_taken(self.model)
        finalize_layerwise_reload(self.model, self.model_config)
        repack_heads(self.model)

    def shutdown(self) -> None:
        pass


class WorkerExtension:
    """Mixed into vLLM's worker class: what must run where the model is."""

    def seed_sampling(self, seed: int) -> None:
        set_random_seed(seed % (1 << 32))  # as many bits as NumPy takes
        torch.manual_seed(seed)


WeightTransferEngineFactory.register_engine(BACKEND, BucketEngine)


class Worker:
    """The engine and the messages it understands."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.version, self.count, self.updating = 0, 0, False
        self.parts: dict[str, InProgress] = {}  # completions that are being sampled
        self.sleeps = spec["shared"] and not current_platform.is_cpu()
        self.llm = load(spec, self.sleeps)
        self.engine = self.llm.llm_engine

    def serve(self, requests: Channel, weights: Channel) -> None:
        self.requests, self.weights = requests, weights
        while all(self.answer(channel) for channel in ready([requests, weights])):
            pass

    def answer(self, channel: Channel) -> bool:
        """Read one message and do what it asks for. Returns whether there will be more."""
        kind, *args = channel.receive()
        if kind == "close":
            return False
        try:
            handlers: Any = {"join": self.join, "begin": self.begin, "bucket": self.bucket, "finish": self.finish,
                             "rest": self.rest, "cache": self.cache}  # fmt: skip
            for part in self.generate(channel, *args) if kind == "generate" else handlers[kind](*args) or ():
                channel.send(part)
        except EOFError:
            raise
        except Exception:  # whatever it was, the controller shows it and starts another worker
            channel.send(("failed", traceback.format_exc()))
            raise
        channel.send(("done",))
        return True

    def attend(self) -> None:
        """New weights, or whatever else the weights line asks for; from begin to finish nothing is sampled."""
        while self.updating or ready([self.weights], 0):
            if not self.answer(self.weights):
                raise EOFError

    def generate(
        self, channel: Channel, requests: list[Any], sampling: dict[str, Any], seed: int, stream: int, enough: int
    ) -> Iterator[tuple]:
        """A ("part", ...) for each completion as soon as it is finished; see RolloutEngine.generate.

        requests: [(index, prompt token_ids, [(place, token_ids of a completion to continue)], seed of its own or
        None)]; without any to continue, K new ones. Token ids are arrays.
        seed: of this call on every worker. On a GPU each completion has a seed of its own from it and its place, so
        that it does not depend on what is sampled beside it, nor by which worker.
        stream: worker's number. On a CPU, where seeds of requests are slow, it has one generator for all of them.
        """
        if not self.parts:
            self.llm.collective_rpc("seed_sampling", args=(seed * 1009 + stream,))
        if not current_platform.is_cpu():
            requests = with_seeds(requests, seed)
        ended: list[InProgress] = []
        parts = self.submit(requests, sampling, bool(enough) or self.spec["in_flight"], ended)
        left = {index: [p for p in parts if p.index == index] for index in dict.fromkeys(p.index for p in parts)}
        finished = 0
        while left and not 0 < enough <= finished:
            if channel is self.requests and self.spec["in_flight"]:
                self.attend()
            self.step()
            for p in ended:
                yield "part", p.index, p.place, p.piece()
            for index in dict.fromkeys(p.index for p in ended):
                if all(p.finish for p in left[index]):
                    finished += sum(p.begun + len(p.token_ids) for p in left.pop(index))
            ended.clear()
        paused = [p for group in left.values() for p in group if not p.finish]
        self.engine.abort_request([p.key for p in paused])
        for p in paused:
            del self.parts[p.key]
            yield "part", p.index, p.place, p.piece()
        while not self.parts and under_way(self.engine):  # or an update would fall into it
            self.engine.step()

    def submit(
        self, requests: list[Any], sampling: dict[str, Any], step_by_step: bool, ended: list[InProgress]
    ) -> list[InProgress]:
        """Each will be in `ended` when it is finished."""
        total, k = sampling["max_total_tokens"], sampling["samples"]
        kinds = vllm.sampling_params.RequestOutputKind
        parts = []
        priority = -1 if self.parts else 0  # a probe comes before what is being sampled
        for index, prompt_ids, paused, seed in requests:
            prompt = prompt_ids.tolist()
            for place, begun in [(i, ids.tolist()) for i, ids in paused] or [(i, []) for i in range(k)]:
                params = vllm.SamplingParams(
                    seed=None if seed is None else seed + place,
                    temperature=sampling["temperature"],
                    top_p=sampling["top_p"],
                    max_tokens=total - len(prompt) - len(begun),
                    logprobs=0,
                    flat_logprobs=True,
                    detokenize=False,
                    output_kind=kinds.DELTA if step_by_step else kinds.FINAL_ONLY,
                )
                self.count += 1
                part = InProgress(str(self.count), index, place, len(begun), ended)
                self.parts[part.key] = part
                parts.append(part)
                self.engine.add_request(part.key, {"prompt_token_ids": prompt + begun}, params, priority=priority)
        return parts

    def step(self) -> None:
        """One decoding step of everything submitted."""
        for out in self.engine.step():
            part = self.parts[out.request_id]
            part.take(out.outputs[0], out.finished, self.version)
            if out.finished:
                part.ended.append(self.parts.pop(part.key))

    def join(self, meeting: dict[str, Any], rank: int, size: int) -> None:
        info = {"meeting": meeting, "rank": rank, "size": size, "deadline_s": self.spec["update_deadline_s"]}
        self.llm.init_weight_transfer_engine({"init_info": info})

    def begin(self) -> None:
        self.updating = True
        if self.sleeps:
            self.llm.wake_up(["weights"])
        self.llm.start_weight_update()

    def bucket(self, tensors: list[list[Any]], handles: dict[str, str]) -> None:
        self.llm.update_weights({"update_info": {"tensors": tensors, "handles": handles}})

    def finish(self, version: int) -> None:
        self.llm.finish_weight_update(str(version))
        if self.sleeps:
            self.llm.wake_up(["kv_cache"])
        # what is being sampled is computed again from its first token, so that no log-prob mixes two versions
        if not self.engine.reset_prefix_cache(reset_running_requests=bool(self.parts)):
            raise RuntimeError("vLLM kept its prefix cache, which is of the weights before this update")
        self.version, self.updating = version, False

    def cache(self) -> list[tuple]:
        tokens = self.engine.vllm_config.cache_config.kv_cache_size_tokens
        # a model that keeps states alone has none
        return [("part", tokens, self.spec["concurrent"], self.spec["max_total_tokens"])] if tokens else []

    def rest(self) -> None:
        if self.sleeps:
            self.llm.sleep(level=2)  # weights are not kept, since an update brings all of them


def load(spec: dict[str, Any], sleeps: bool) -> vllm.LLM:
    kv = {"kv_cache_memory_bytes": spec["kv_cache_mib"] << 20} if spec["kv_cache_mib"] else {}
    return vllm.LLM(
        model=spec["model"],
        trust_remote_code=False,
        load_format="safetensors",
        dtype=spec["dtype"],
        max_model_len=spec["max_total_tokens"],
        max_num_seqs=spec["concurrent"],
        tensor_parallel_size=spec["tensor_parallel"],
        enforce_eager=current_platform.is_cpu(),
        # on the CPU a prompt that is read in parts ends vLLM: it sets back a generator that has no offset there
        enable_chunked_prefill=False if current_platform.is_cpu() else None,
        # which a shared cache of recurrent states needs
        enable_prefix_caching=False if current_platform.is_cpu() and keeps_state(read_config(spec["model"])) else None,
        gpu_memory_utilization=spec["gpu_memory"],
        enable_sleep_mode=sleeps,
        logprobs_mode="processed_logprobs",  # those of the distribution that was sampled from
        worker_extension_cls="ringrl.rollout.vllm_worker.WorkerExtension",
        weight_transfer_config=WeightTransferConfig(backend=BACKEND),
        seed=0,
        scheduling_policy="priority" if spec["in_flight"] else "fcfs",
        # while it schedules ahead, a step is under way between any two of ours, and an update would fall into it
        async_scheduling=False if spec["in_flight"] else None,
        disable_log_stats=True,
        enable_return_routed_experts=spec["routes"],
        **kv,
    )


def with_seeds(requests: list[Any], seed: int) -> list[Any]:
    """The same requests; those without a seed of their own get one that depends on `seed` and their index alone."""
    return [(index, ids, paused, seed_of(seed, index) if own is None else own) for index, ids, paused, own in requests]


@dataclass(eq=False)
class InProgress:
    """One completion while it is sampled."""

    key: str
    index: int  # index of its group
    place: int  # its place in the group
    begun: int  # number of tokens it had before
    ended: list[InProgress] = field(repr=False)  # receives it when it is finished
    token_ids: array[int] = field(default_factory=lambda: array("i"))
    logprobs: array[float] = field(default_factory=lambda: array("f"))
    versions: list[int] = field(default_factory=list)  # weights of each output
    finish: str = ""
    routes: Any = None

    def take(self, o: Any, finished: bool, version: int) -> None:
        # one log-prob a position was asked for, so the flat list is aligned with the tokens
        logprobs = o.logprobs.logprobs if o.logprobs is not None else []
        assert len(logprobs) == len(o.token_ids), (len(logprobs), len(o.token_ids))
        self.token_ids.extend(o.token_ids)
        self.logprobs.extend(logprobs)
        self.versions.append(version)
        if finished:
            self.finish, self.routes = o.finish_reason, o.routed_experts

    def piece(self) -> tuple:
        """The fields of a `ringrl.rollout.engine.Piece`."""
        first, last = (self.versions[0], self.versions[-1]) if self.versions else (0, 0)
        tokens, logprobs = np.array(self.token_ids), np.array(self.logprobs)
        return tokens, logprobs, self.finish or "paused", first, last, self.routes


def main() -> None:
    spec = json.loads(sys.stdin.readline())
    sock = bound(spec["host"], spec["port"])
    worker = Worker(spec)
    listener = Listener(sock, bytes.fromhex(spec["authkey"]), 2)
    write_atomic(Path(spec["address_file"]), f"{spec['name'] or spec['host']}:{sock.getsockname()[1]}")
    try:
        worker.serve(*listener.accept())
    except EOFError:
        return  # the controller is gone, or has given us up
