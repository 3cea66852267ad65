"""What `ringrl.rollout.vllm_internals` corrects, against the vLLM that is installed; `tests/cli/test_vllm.py` and the
probe after every weight sync show that its correction works."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest


def methods(file: str, name: str) -> dict[str, str]:
    """Source of the methods of a class, by name; vLLM is not imported."""
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("needs vLLM")
    layers = Path(spec.origin).parent / "model_executor" / "layers"
    tree = ast.parse((layers / file).read_text())
    [found] = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name]
    return {n.name: ast.unparse(n) for n in found.body if isinstance(n, ast.FunctionDef)}


def test_vllm_still_packs_experts_on_the_first_load_only() -> None:
    """Else `RepackedMoEMethod` can go."""
    source = methods("fused_moe/unquantized_fused_moe_method.py", "UnquantizedFusedMoEMethod")
    assert source["process_weights_after_loading"].rstrip().endswith("w2=layer.w2_weight)")  # _setup_kernel comes last
    kernel = source["_setup_kernel"]
    first, packs = "if not is_weight_update:", "self.moe_kernel.fused_experts.process_weights_after_loading(layer)"
    assert "is_weight_update = self.moe_kernel is not None" in kernel
    assert kernel.count(packs) == 1
    assert 0 < kernel.index(first) < kernel.index(packs)


def test_packing_is_the_method_of_the_experts_that_is_called_again() -> None:
    source = methods("fused_moe/experts/cpu_moe.py", "CPUUnquantizedExperts")["process_weights_after_loading"]
    assert "cpu_prepack_moe_weight(layer.w13_weight" in source


def test_vllm_on_the_cpu_still_leaves_out_the_bias_of_routers_without_groups() -> None:
    """Else `with_one_group` can go."""
    routes = methods("fused_moe/router/cpu_router.py", "CPURouter")["_compute_routing"]
    assert "_softmax_topk(router_logits, self.top_k, self.renormalize)" in routes
    assert "self.use_grouped_topk" in routes


def test_vllm_on_the_cpu_still_rotates_queries_in_one_call_of_its_kernel() -> None:
    """Else `of_every_head` may go; scripts/families_vllm.py shows on DeepSeek-V2 whether it is needed."""
    rotary = methods("rotary_embedding/base.py", "RotaryEmbedding")
    assert "ops.rotary_embedding(positions, query, key, self.head_size" in rotary["forward_cpu"]
    assert "forward_native" in rotary or "forward_static" in rotary


def test_vllm_still_loses_updates_of_weights_that_a_model_copies_by_itself() -> None:
    """Else gpt-oss could be trained with it; scripts/families_vllm.py shows that `check_taken` refuses it."""
    assert "param.copy_(narrow_weight)" in methods("../models/gpt_oss.py", "GptOssModel")["_load_weights_other"]
    wrapped = methods("../model_loader/reload/types.py", "LayerReloadingInfo")
    assert "self.load_numel_total is not None" in wrapped["can_load"]
