"""What ringrl corrects in vLLM. Importing this registers it, before a model is loaded.

`tests/rollout/test_vllm_internals.py` fails when vLLM has changed here.
"""

from __future__ import annotations

from typing import Any

import vllm
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info
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


def with_one_group(init: Any) -> Any:
    """A router's __init__: vLLM on the CPU leaves out the correction bias of a router without groups (ERNIE 4.5), in
    silence. With one group it adds it."""

    def initialize(router: Any, *args: Any, **kwargs: Any) -> None:
        init(router, *args, **kwargs)
        biased = router.e_score_correction_bias is not None and router.custom_routing_function is None
        if biased and not router.use_grouped_topk and router.scoring_func in ("softmax", "sigmoid"):
            router.use_grouped_topk, router.num_expert_group, router.topk_group = True, 1, 1

    return initialize


def of_every_head(rotate: Any) -> Any:
    """A rotary embedding's forward_cpu: of queries of shape [tokens, heads, size], which latent attention has
    (DeepSeek-V2, V3), vLLM's kernel rotates the first head alone, in silence."""

    def forward(embedding: Any, positions: Any, query: Any, key: Any = None) -> Any:
        if query.dim() == 2:
            return rotate(embedding, positions, query, key)
        return embedding.forward_native(positions, query, key)

    return forward


def check_taken(model: Any) -> None:
    """Before an update in place ends. vLLM notices weights by its wrapped loaders; where a model copies them itself
    (gpt-oss), they are gone, and vLLM puts the old ones back with no more than a warning.

    Raises:
        RuntimeError: a layer got none of its parameters; a tied head and the scales of attention need not.
    """
    lost = []
    for name, layer in model.named_modules():
        info = get_layerwise_info(layer)
        own = any(p is not None for p in layer._parameters.values())
        waits = own and info.can_load() and not info.load_numel
        if waits and not isinstance(layer, ParallelLMHead) and not hasattr(layer, "kv_cache"):
            lost.append(name)
    if lost:
        raise RuntimeError(
            f"vLLM {vllm.__version__} does not take new weights of {type(model).__name__}: it left out those of "
            f"{len(lost)} layers, such as {lost[0]}; set rollout.engine: transformers"
        )


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
    from vllm.model_executor.layers.fused_moe.router.cpu_router import CPURouter
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding

    require("vllm", vllm.__version__, "0.30", "0.33")
    UnquantizedFusedMoEMethod.register_oot(RepackedMoEMethod)
    CPURouter.__init__ = with_one_group(CPURouter.__init__)
    RotaryEmbedding.forward_cpu = of_every_head(RotaryEmbedding.forward_cpu)
