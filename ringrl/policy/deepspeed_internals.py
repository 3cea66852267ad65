"""Everything that ringrl knows of DeepSpeed beyond its documented interface, for the versions that it was tested with.

DeepSpeed's engine finds expert parallelism by `isinstance(module, AutoEPMoELayer)` and by marks on parameters; there is
no other way to tell it. `tests/policy/test_deepspeed_internals.py` fails when a name or meaning used here has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import deepspeed
import deepspeed.ops
import torch
import torch.distributed as dist
from deepspeed.checkpoint import autoep_affine, ds_to_universal
from deepspeed.checkpoint import constants as keys
from deepspeed.module_inject.auto_ep_layer import AutoEPMoELayer
from deepspeed.runtime.checkpoint_engine import TorchCheckpointEngine
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address
from torch import nn

from ringrl.errors import require

require("deepspeed", deepspeed.__version__, "0.19.8", "0.20")
# the classes in its files: it calls torch.load(weights_only=False), which `ringrl.launch.machine` overrules for all of
# our processes, and then only these and tensors are built
torch.serialization.add_safe_globals([LossScaler, ZeroStageEnum, fragment_address])


def skip_cpu_extension() -> None:
    """Before `init_distributed` on the CPU: it would compile a C++ extension that training never uses (21 s, and an
    error without a compiler), and looks nowhere else whether it should."""
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def gathered(tensors: Iterable[Any]) -> Any:
    """A context in which every rank holds those of the tensors whole that ZeRO-3 has partitioned."""
    return deepspeed.zero.GatheredParameters([t for t in tensors if hasattr(t, "ds_id")])


def separate_steps(engine: Any) -> None:
    """After a checkpoint was loaded: a fused AdamW wants `step` where the parameter is; and of a universal one, under
    ZeRO-3, 0.19.8 gives all groups of parameters one such tensor, which AdamW would advance once per group."""
    for p, slot in engine.optimizer.optimizer.state.items():
        slot["step"] = torch.as_tensor(slot["step"], dtype=torch.float32).to(p.device, copy=True)


class RedirectedSaving(TorchCheckpointEngine):
    """Reads checkpoints as DeepSpeed does, and hands what is to be saved to `write(path, value)`."""

    def __init__(self, write: Callable[[str, Any], None]) -> None:
        super().__init__()
        self.write = write

    def save(self, state_dict: Any, path: str) -> None:
        self.write(path, state_dict)

    def load(self, path: str, map_location: Any = None) -> Any:
        return torch.load(path, map_location=map_location, weights_only=True)


class ExpertParallelLayer(AutoEPMoELayer):
    """A module that DeepSpeed treats as experts shared out over groups of `ep_size` consecutive ranks.

    It makes the groups. Subclasses put the local experts' weights as w1, w2, w3, each [local experts, ...], into a
    module `experts`, and `mark` them.
    """

    def __init__(self, num_experts: int, ep_size: int) -> None:
        nn.Module.__init__(self)  # AutoEPMoELayer's own would build a whole MoE block
        self.num_experts, self.num_local_experts, self.ep_size = num_experts, num_experts // ep_size, ep_size
        self.ep_group_name = f"ep_size_{ep_size}"
        self.folding_group_handles = self.tp_group = None
        self.comm_backend, self.async_split_plan = "comm", False
        place = autoep_affine.legacy_uniform_autoep_placement_descriptor
        self.expert_placement_descriptor = place(num_experts, self.num_local_experts, ep_size)
        self.set_deepspeed_parallelism()  # sets ep_group
        self.ep_rank = dist.get_rank(self.ep_group)

    def mark(self, p: Any) -> None:
        """What DeepSpeed reads off an expert's parameter; without it gradients would be averaged in silence."""
        p.allreduce, p.group_name = False, self.ep_group_name
        p.ds_zero_placement_family, p.ds_zero_partition_group_name = "autoep_expert", self.ep_group_name
        whole = [self.num_experts, *p.shape[1:]]
        placement = self.expert_placement_descriptor
        meta = {
            keys.AUTOEP_EXPERT_PLACEMENT: placement,
            keys.AFFINE_MAP: autoep_affine.autoep_placement_to_affine_map(placement, whole).to_dict(),
            keys.AUTOEP_PARAM_LOGICAL_SHAPE: whole,
            keys.AUTOEP_PARAM_EP_RANK: self.ep_rank,
            keys.AUTOEP_PARAM_LOCAL_EXPERTS: list(autoep_affine.autoep_experts_for_rank(placement, self.ep_rank)),
        }
        setattr(p, keys.DS_AUTOEP_UC_META, meta)


if __name__ == "__main__":  # DeepSpeed's converter, in a process where the above holds
    ds_to_universal.main(ds_to_universal.parse_arguments())
