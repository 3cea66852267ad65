"""What ringrl corrects in vLLM. Importing this registers it, before a model is loaded.

`tests/rollout/test_vllm_internals.py` fails when vLLM has changed here.
"""

from __future__ import annotations

from typing import Any

import vllm
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.platforms import current_platform

from ringrl.errors import require


class RepackedMoEMethod(UnquantizedFusedMoEMethod):
    """vLLM on the CPU packs expert weights on the first load only; after an update in place its kernel would read
    unpacked ones and produce garbage in silence. This packs them on every load."""

    def process_weights_after_loading(self, layer: Any) -> None:
        updated = self.moe_kernel is not None
        super().process_weights_after_loading(layer)
        if updated:
            self.moe_kernel.fused_experts.process_weights_after_loading(layer)


def repack_heads(model: Any) -> None:
    """After an update in place. vLLM on the CPU packs an output head when its weights arrive; a head that is tied to
    the embeddings, which a configuration need not say, gets none of its own, and would keep the old ones in silence."""
    if current_platform.is_cpu():
        for layer in model.modules():
            if isinstance(layer, ParallelLMHead):
                layer.quant_method.process_weights_after_loading(layer)


def under_way(engine: vllm.v1.engine.llm_engine.LLMEngine) -> bool:
    """Whether an engine in this process that schedules ahead has begun a batch whose output was not taken; one in a
    process of its own takes it by itself."""
    core = getattr(engine.engine_core, "engine_core", None)
    return core is not None and bool(core.batch_queue)


if current_platform.is_cpu():
    require("vllm", vllm.__version__, "0.30", "0.33")
    UnquantizedFusedMoEMethod.register_oot(RepackedMoEMethod)
