"""Two ranks that share out the experts, and a vLLM worker: after a sync it is the model that they hold together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

from ringrl.processes import free_port
from tests.conftest import Inputs, as_rank, rl_config, write_ling


def config(inputs: Inputs, colocated: bool) -> Any:
    from ringrl.config.commands import RLConfig
    from ringrl.config.load import check

    raw = rl_config(inputs, Path("unused"))
    raw["trainer"] |= {"ranks": 2, "parallel": {"expert": 2}}
    raw["rollout"] |= {"engine": "vllm", "bucket_mib": 1, "colocated": colocated}
    return check(RLConfig, raw, "test")


def one_rank(rank: int, port: int, inputs: Inputs, address: str, folder: Path) -> None:
    as_rank(rank, 2, port)
    from ringrl.algo.pack import pack
    from ringrl.commands.sft import train_step
    from ringrl.data.chat import load_tokenizer, make_prompts
    from ringrl.data.source import read_problems
    from ringrl.domains import Domains
    from ringrl.policy.engine import Policy
    from ringrl.policy.ranks import Ranks
    from ringrl.policy.sync import WeightSync
    from ringrl.rollout.engine import Sampling, fresh
    from ringrl.rollout.vllm_pool import Deadlines, VLLMPool

    cfg = config(inputs, colocated=False)
    ranks = Ranks(120)
    tokenizer = load_tokenizer(cfg.model, cfg.prompting)
    prompts = make_prompts(read_problems(cfg.stages[0].data[0], Domains()), tokenizer, cfg.prompting, 64, Domains())[:3]
    policy = Policy(cfg.model, tokenizer, cfg.trainer, cfg.optimizer, 1.0, ranks)
    engine = None
    if ranks.main:
        engine = VLLMPool([address], b"key", 1, Deadlines(120, 60, 60, 0), restart=str, note=print)
    greedy = Sampling(1, 0.0, 64)
    for version, colocated in enumerate((False, True), 1):
        cfg = config(inputs, colocated)
        if engine:
            engine.shared = colocated
        sft: Any = type("Settings", (), {"trainer": cfg.trainer, "balance": 0.0, "z": 0.0})
        rows = pack(sequences(prompts), ranks.size, cfg.trainer.microbatch_tokens)[ranks.rank]
        train_step(policy, rows, sft, 3e-3, torch.zeros(0, 1))
        sync = WeightSync(policy, engine, cfg.model, prompts[:2], Sampling(1, 1.0, 64), cfg.rollout, folder)
        parity = sync.push(version)
        policy.save(folder / f"version_{version}", {})
        policy.settle()
        if engine:
            found = sorted(engine.generate(fresh(prompts), greedy, seed=0))
            out = [
                (prompts[i].token_ids.tolist(), c.token_ids.tolist(), c.logprobs.tolist(), c.version)
                for i, _, c in found
            ]
            torch.save({"gap": parity.gap, "out": out}, folder / f"version_{version}.pt")
    if engine:
        engine.close()
    ranks.close()


def sequences(prompts: Any) -> Any:
    from ringrl.algo.pack import TokenSequence

    return [TokenSequence(p.token_ids, (False,) + (True,) * (len(p.token_ids) - 1), 0.01) for p in prompts]


@pytest.fixture(scope="module")
def synced(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("vllm")
    from ringrl.launch.command import WorkerSpec
    from ringrl.launch.crew import Crew, stop
    from ringrl.run import Run

    folder = tmp_path_factory.mktemp("sync")
    (folder / "logs").mkdir()
    cfg = config(inputs, colocated=False)
    crew: Any = Crew(Run(folder), folder, None, WorkerSpec(cfg.model, cfg.rollout, 64))  # type: ignore[arg-type]
    crew.authkey = b"key".hex()
    port = free_port()
    try:
        crew._start_worker(0, folder / "worker0")
        multiprocessing.spawn(one_rank, (port, inputs, str(folder / "worker0"), folder), 2)
    finally:
        stop(crew.workers, 2.0)
    return folder


@pytest.mark.parametrize("version", [1, 2], ids=["sent", "mapped"])
def test_the_worker_continues_as_the_gathered_checkpoint_does(version: int, synced: Path, inputs: Inputs) -> None:
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(synced / f"version_{version}", dtype=torch.float32).eval()
    start = AutoModelForCausalLM.from_pretrained(inputs.model, dtype=torch.float32)
    moved = max(float((a - b).detach().abs().max()) for a, b in zip(lm.parameters(), start.parameters(), strict=True))
    assert moved > 1e-3 * version
    result = torch.load(synced / f"version_{version}.pt")
    assert result["gap"] < 1e-4
    for prompt, tokens, logprobs, at in result["out"]:
        ids = torch.tensor([prompt + tokens])
        with torch.no_grad():
            own = lm(ids).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
        assert own.argmax(-1).tolist() == list(tokens)
        torch.testing.assert_close(own.max(-1).values, torch.tensor(logprobs), rtol=0, atol=1e-4)
        assert at == version


def test_a_worker_on_our_gpu_wakes_when_our_memory_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ringrl.config.sections import Rollout
    from ringrl.policy.forward import load_lm
    from ringrl.policy.sync import expected_kinds, send_weights
    from ringrl.rollout.transfer import Shared

    calls: list[str] = []

    class Recording:
        def update(self, walk: Any, version: int) -> bool:
            calls.append("update")
            list(walk)
            return calls.count("update") > 1  # a worker fails the first time, and is replaced

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("give back"))
    model = str(write_ling(tmp_path / "model"))
    lm = load_lm(model, "float32", "packed")
    for colocated, expected in ((True, ["give back", "update"] * 2), (False, ["update"] * 2)):
        calls.clear()
        shared = Shared(torch.device("cpu"), tmp_path / "bucket", 1 << 20)
        engine: Any = Recording()
        send_weights(engine, lm, 1, expected_kinds(model, lm), Rollout(colocated=colocated), shared)
        assert calls == expected
