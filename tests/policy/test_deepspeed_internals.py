"""What `ringrl.policy.deepspeed_internals` takes for granted, against the DeepSpeed that is installed."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing

from ringrl.errors import UserError, require
from ringrl.processes import free_port
from tests.conftest import as_rank

EXPERTS = 4
AUTOEP = {"enabled": True, "autoep_size": 1, "preset_model": "qwen3_moe"}
CONFIG = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 1},
          "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}}}  # fmt: skip


def model() -> Any:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    return Qwen3MoeForCausalLM(Qwen3MoeConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, head_dim=16,
                                              num_key_value_heads=1, num_experts=EXPERTS, num_experts_per_tok=2,
                                              moe_intermediate_size=8, vocab_size=8, pad_token_id=None))  # fmt: skip


def engine_of(lm: Any, **config: Any) -> Any:
    import deepspeed

    return deepspeed.initialize(model=lm, model_parameters=list(lm.parameters()), config={**CONFIG, **config})[0]


def described(module: Any) -> dict[str, Any]:
    """What DeepSpeed is told of a module of experts and of each of its weights."""
    plain = (bool, int, str, dict, type(None))
    names = ("num_experts", "num_local_experts", "ep_size", "ep_rank", "ep_group_name", "folding_group_handles",
             "tp_group", "comm_backend", "async_split_plan", "expert_placement_descriptor")  # fmt: skip
    weights = {n: {k: v for k, v in vars(p).items() if isinstance(v, plain) and k != "ds_id"} | {"shape": p.shape}
               for n, p in module.experts.named_parameters()}  # fmt: skip
    return {"module": {n: copy.deepcopy(getattr(module, n)) for n in names}, "weights": weights}


def one_rank(_: int, port: int, folder: Path) -> None:
    as_rank(0, 1, port)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(folder / "extensions")
    from ringrl.policy.ranks import Ranks

    ranks = Ranks(60)
    from deepspeed.module_inject.auto_ep_layer import AutoEPMoELayer

    from ringrl.policy.deepspeed_internals import RedirectedSaving
    from ringrl.policy.experts import shard_experts

    theirs, ours = model(), model()
    engine_of(theirs, expert_parallel=AUTOEP)
    shard_experts(ours, 1, 1)
    engine = engine_of(ours)
    layers = [next(m for m in lm.modules() if isinstance(m, AutoEPMoELayer)) for lm in (theirs, ours)]
    saved: dict[str, Any] = {}
    engine.checkpoint_engine = RedirectedSaving(saved.__setitem__)
    engine.save_checkpoint(str(folder / "checkpoint"), tag="engine")
    written = [p.name for p in folder.rglob("*") if p.is_file()]
    torch.save({"theirs": described(layers[0]), "ours": described(layers[1]), "moe": engine.has_moe_layers,
                "saved": sorted(Path(p).name for p in saved), "written": written}, folder / "result.pt")  # fmt: skip
    ranks.close()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("internals")
    multiprocessing.spawn(one_rank, (free_port(), folder), 1)
    return torch.load(folder / "result.pt", weights_only=False)


def test_our_experts_say_of_themselves_what_deepspeeds_own_say(result: dict[str, Any]) -> None:
    assert result["moe"]
    for marks in result["theirs"]["weights"].values():
        assert marks.pop("is_expert_group")  # read by the optimizer Muon only
    assert result["ours"] == result["theirs"]
    assert set(result["ours"]["weights"]) == {"w1", "w2", "w3"}
    assert all(len(marks) >= 5 for marks in result["ours"]["weights"].values())


def test_every_file_of_a_checkpoint_goes_to_the_writer_and_nothing_is_compiled(result: dict[str, Any]) -> None:
    assert sorted(result["written"]) == ["latest", "zero_to_fp32.py", "zero_to_torch.py"]
    assert any(name.endswith("_model_states.pt") for name in result["saved"])
    assert any(name.endswith("_optim_states.pt") for name in result["saved"])


def test_a_universal_checkpoint_still_needs_its_steps_separated() -> None:
    """Else `separate_steps` can go."""
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3 as Stage3

    source = inspect.getsource(Stage3.load_hp_checkpoint_state_from_checkpoint_dir_stage3)
    assert "self.optimizer.state[fp32_param]['step'] = state_step" in source


@pytest.mark.parametrize("installed", ["0.19.7", "0.20.0", "1.0"])
def test_another_version_is_refused(installed: str) -> None:
    with pytest.raises(UserError, match=rf"^deepspeed: got version {installed}, expected at least 0\.19\.8 and below"):
        require("deepspeed", installed, "0.19.8", "0.20")
    require("deepspeed", "0.19.8+cpu", "0.19.8", "0.20")


def test_its_files_are_read_as_tensors_and_a_few_classes_though_it_asks_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of it calls torch.load; which environment that takes is said by ringrl.launch.machine."""
    from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    from ringrl.launch.machine import rank_env
    from ringrl.policy.deepspeed_internals import RedirectedSaving

    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.setenv(name, rank_env(0, 1, 1)[name])
    good = {"a": torch.ones(2), "scaler": LossScaler(2.0), "stage": ZeroStageEnum.weights,
            "where": fragment_address(numel=3, start=1)}  # fmt: skip

    class Touches:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    for reader in (TorchCheckpointEngine(), RedirectedSaving(lambda path, value: None)):
        torch.save(good, tmp_path / "file.pt")
        back = reader.load(str(tmp_path / "file.pt"))
        assert (back["stage"], back["where"], back["scaler"].cur_scale) == (good["stage"], good["where"], 2.0)
        torch.save({**good, "more": Touches()}, tmp_path / "file.pt")
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            reader.load(str(tmp_path / "file.pt"))
        assert not (tmp_path / "ran").exists()
