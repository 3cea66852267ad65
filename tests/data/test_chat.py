"""What is sampled from and what is trained on are the same tokens, and only the assistant's are trained."""

from __future__ import annotations

import json
import shutil
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ringrl.algo.pack import TokenSequence
from ringrl.config.sections import Prompting
from ringrl.data.chat import load_tokenizer, make_prompts, make_sequences, template_hash, turn_end
from ringrl.data.tiny import build_model
from ringrl.domains import Domains
from ringrl.errors import DataError
from ringrl.rewards.answers import verify_math
from ringrl.rollout.score import read, thinking_prefix
from ringrl.types import Completion

PLAIN = Prompting(suffix={})
CORPUS = ["What is 12 + 34? <think>10 + 30 = 40, 2 + 4 = 6</think> The answer is \\boxed{46}.", "print(input())"] * 20
ROW = {"id": "sum-1", "domain": "math", "problem": "What is 12 + 34?", "answer": "46"}
REPLY = "<think>12 + 34 = 46</think> \\boxed{46}"
SECOND = "Indeed, 46 – naïvely said. 日本"
FOUR_TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 12 + 34?"},
    {"role": "assistant", "content": REPLY},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": SECOND},
]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chat") / "model"
    build_model(out, CORPUS, 0, vocab_size=320, layers=1, hidden=32, experts=2, moe_intermediate=32)
    return out


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(folder), PLAIN)


def parts_of(
    messages: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, how: Prompting = PLAIN
) -> list[TokenSequence]:
    """The sequences of one conversation."""
    end = turn_end(tokenizer.name_or_path, tokenizer, how)
    [sequences] = make_sequences([("rows:1", messages)], tokenizer, how, end)
    return sequences


def sequence_of(
    messages: list[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, how: Prompting = PLAIN
) -> TokenSequence:
    [sequence] = parts_of(messages, tokenizer, how)
    return sequence


def trained_texts(sequence: TokenSequence, tokenizer: PreTrainedTokenizerBase) -> list[tuple[bool, str]]:
    """Runs of trained and untrained tokens as text."""
    pairs = zip(sequence.trained.tolist(), sequence.token_ids.tolist(), strict=True)
    return [(key, tokenizer.decode([i for _, i in run])) for key, run in groupby(pairs, key=lambda p: p[0])]


def test_only_what_the_assistant_says_is_trained_on_in_every_turn(tokenizer: PreTrainedTokenizerBase):
    assert trained_texts(sequence_of(FOUR_TURNS, tokenizer), tokenizer) == [
        (False, "<role>SYSTEM</role>Be brief.<role>HUMAN</role>What is 12 + 34?<role>ASSISTANT</role>"),
        (True, REPLY + "<|endoftext|>"),
        (False, "<role>HUMAN</role>Sure?<role>ASSISTANT</role>"),
        (True, SECOND + "<|endoftext|>"),
    ]


def test_every_turn_ends_with_a_trained_end_of_sequence(tokenizer: PreTrainedTokenizerBase):
    sequence = sequence_of(FOUR_TURNS, tokenizer)
    ends = [
        t
        for i, t in zip(sequence.token_ids.tolist(), sequence.trained.tolist(), strict=True)
        if i == tokenizer.eos_token_id
    ]
    assert ends == [True, True]
    assert not sequence.trained[0]
    assert sequence.weight == 1.0


@pytest.mark.parametrize("how", [PLAIN, Prompting(), Prompting(system="Be brief.")])
def test_the_prompt_has_the_same_tokens_when_trained_on_and_when_sampled_from(
    tokenizer: PreTrainedTokenizerBase, how: Prompting
):
    (prompt,) = make_prompts([ROW], tokenizer, how, room=999, domains=Domains())
    suffix = how.suffix.get("math", "")
    system = [{"role": "system", "content": how.system}] if how.system else []
    user = {"role": "user", "content": ROW["problem"] + (f"\n{suffix}" if suffix else "")}
    sequence = sequence_of([*system, user, {"role": "assistant", "content": REPLY}], tokenizer)
    n = len(prompt.token_ids)
    assert np.array_equal(sequence.token_ids[:n], prompt.token_ids)
    assert np.array_equal(sequence.trained, np.arange(len(sequence.trained)) >= n)
    assert tokenizer.decode(prompt.token_ids).endswith("<role>ASSISTANT</role>")


def test_prompts_carry_what_the_verifier_needs_and_no_more(tokenizer: PreTrainedTokenizerBase):
    code = {"id": 7, "domain": "code", "problem": "echo", "tests": [{"input": "1", "output": "1"}], "entry_point": "f"}
    prompts = make_prompts([ROW, code], tokenizer, Prompting(), room=999, domains=Domains())
    assert [(p.id, p.domain) for p in prompts] == [("sum-1", "math"), ("7", "code")]
    assert prompts[0].reference == {"answer": "46"}
    assert prompts[1].reference == {"tests": code["tests"], "entry_point": "f"}
    assert "```python" in tokenizer.decode(prompts[1].token_ids)
    assert "boxed" not in tokenizer.decode(prompts[1].token_ids)


def test_a_prompt_that_is_too_long_is_named_at_the_exact_length(tokenizer: PreTrainedTokenizerBase):
    (prompt,) = make_prompts([ROW], tokenizer, PLAIN, room=999, domains=Domains())
    n = len(prompt.token_ids)
    assert len(make_prompts([ROW], tokenizer, PLAIN, room=n + 1, domains=Domains())) == 1
    assert len(make_prompts([ROW], tokenizer, Prompting(suffix={}, max_tokens=n), room=999, domains=Domains())) == 1
    for how, room in ((PLAIN, n), (Prompting(suffix={}, max_tokens=n - 1), 999)):
        with pytest.raises(DataError, match=f"^sum-1: the prompt has {n} tokens, expected at most {n - 1}$"):
            make_prompts([ROW], tokenizer, how, room, Domains())


def test_a_configured_template_replaces_the_tokenizers(folder: Path, tmp_path: Path):
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}")
    mine = load_tokenizer(str(folder), Prompting(suffix={}, template=str(file)))
    (prompt,) = make_prompts([ROW], mine, PLAIN, room=999, domains=Domains())
    assert mine.decode(prompt.token_ids) == "[user]What is 12 + 34?"
    assert template_hash(mine) != template_hash(load_tokenizer(str(folder), PLAIN))


def test_a_turn_that_does_not_go_on_from_its_prompt_is_refused(folder: Path, tmp_path: Path):
    file = tmp_path / "last.jinja"
    file.write_text("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}")
    forgetful = load_tokenizer(str(folder), Prompting(template=str(file)))
    with pytest.raises(DataError, match="writes a turn otherwise than the prompt before it"):
        sequence_of(FOUR_TURNS, forgetful)


def test_a_tokenizer_without_a_template_needs_one(folder: Path, tmp_path: Path):
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("chat_template.jinja", "*.safetensors"))
    with pytest.raises(DataError, match=r"the tokenizer has no chat template, set prompting\.template"):
        load_tokenizer(str(bare), PLAIN)
    file = tmp_path / "mine.jinja"
    file.write_text("{{ messages[0].content }}")
    assert load_tokenizer(str(bare), Prompting(template=str(file))).chat_template == "{{ messages[0].content }}"


def test_a_missing_template_or_tokenizer_is_named(folder: Path, tmp_path: Path):
    with pytest.raises(DataError, match=r"prompting\.template: nowhere\.jinja: no such file"):
        load_tokenizer(str(folder), Prompting(template="nowhere.jinja"))
    with pytest.raises(DataError, match=r"no tokenizer_config\.json, expected a model folder"):
        load_tokenizer(str(tmp_path), PLAIN)


# ---- the templates that come with the package

THOUGHT = [{"role": "user", "content": "What is 12 + 34?"}, {"role": "assistant", "content": REPLY}]
PLAINLY = [THOUGHT[0], {"role": "assistant", "content": "46"}]
QWEN3 = """
{%- for m in messages %}
    {%- set thought, end, answer = m.content.partition('</think>') %}
    {%- if m.role != 'assistant' %}{{- '<|im_start|>' + m.role + '\\n' + m.content }}
    {%- else %}{{- '<|im_start|>assistant\\n<think>\\n' + (thought.removeprefix('<think>').strip('\\n') if end else '')
                + '\\n</think>\\n\\n' + (answer if end else m.content).lstrip('\\n') }}
    {%- endif %}{{- '<|endoftext|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""  # what matters here of Qwen3's: the switch, a layout of thoughts, a newline behind the stop token


@pytest.fixture(scope="session")
def family(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Ling-lite's architecture, whose tokenizer has no template."""
    out = tmp_path_factory.mktemp("family")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, out)
    (out / "config.json").write_text(
        json.dumps({"model_type": "bailing_moe", "architectures": ["BailingMoeForCausalLM"], "eos_token_id": 0})
    )
    return out


@pytest.fixture(scope="session")
def second_family(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of Ling 2.0, with its stop token."""
    out = shutil.copytree(family, tmp_path_factory.mktemp("second") / "family")
    tokenizer = AutoTokenizer.from_pretrained(out)
    tokenizer.add_tokens(["<|role_end|>"], special_tokens=True)
    tokenizer.save_pretrained(out)
    config = {"model_type": "bailing_moe", "architectures": ["BailingMoeV2ForCausalLM"]}
    config["eos_token_id"] = [0, len(tokenizer) - 1]
    (out / "config.json").write_text(json.dumps(config))
    return out


def prompt_text(tokenizer: PreTrainedTokenizerBase, how: Prompting) -> str:
    return tokenizer.decode(make_prompts([ROW], tokenizer, how, room=999, domains=Domains())[0].token_ids)


def test_a_family_has_a_template_when_its_tokenizer_has_none(family: Path, second_family: Path):
    assert prompt_text(load_tokenizer(str(family), PLAIN), PLAIN) == (
        "<role>SYSTEM</role>detailed thinking on<role>HUMAN</role>What is 12 + 34?<role>ASSISTANT</role><think>\n"
    )
    assert prompt_text(load_tokenizer(str(second_family), PLAIN), PLAIN) == (
        "<role>SYSTEM</role>detailed thinking on<|role_end|>"
        "<role>HUMAN</role>What is 12 + 34?<|role_end|><role>ASSISTANT</role>"
    )


def test_a_tokenizers_own_template_goes_before_its_familys_and_after_the_named(folder: Path, tmp_path: Path):
    ling = shutil.copytree(folder, tmp_path / "ling")
    (ling / "config.json").write_text(
        json.dumps({"model_type": "bailing_moe", "architectures": ["BailingMoeForCausalLM"], "eos_token_id": 0})
    )
    assert prompt_text(load_tokenizer(str(ling), PLAIN), PLAIN).endswith("<role>ASSISTANT</role>")
    named = Prompting(suffix={}, template="ring-lite-distill-preview")
    assert prompt_text(load_tokenizer(str(ling), named), PLAIN).endswith("<role>ASSISTANT</role><think>")


ASKED = "<role>HUMAN</role>What is 12 + 34?"
ASKED_V2 = f"{ASKED}<|role_end|><role>ASSISTANT</role>"
BRIEF = "<role>SYSTEM</role>Be brief."
DETAILED = "<role>SYSTEM</role>detailed thinking"
REST = REPLY.removeprefix("<think>")
HERE = "<role>ASSISTANT</role>"
END = "<|endoftext|>"


@pytest.mark.parametrize(
    ("template", "thinking", "messages", "expected"),  # prompt, turn, prompt, turn ...; one list a sequence
    [
        ("ring-lite", True, THOUGHT, [[f"{DETAILED} on{ASKED}{HERE}<think>\n", REST + END]]),
        ("ring-lite", False, PLAINLY, [[f"{DETAILED} off{ASKED}{HERE}", "46" + END]]),
        ("ring-lite", True, FOUR_TURNS,  # the system turn says whether the next turn thinks
         [[f"{BRIEF}\ndetailed thinking on{ASKED}{HERE}<think>\n", REST + END],
          [f"{BRIEF}\ndetailed thinking off{ASKED}{HERE}{REPLY}<role>HUMAN</role>Sure?{HERE}", SECOND + END]]),
        ("ring-lite-distill-preview", True, THOUGHT, [[f"{ASKED}{HERE}<think>", REST + END]]),
        ("ring-lite-distill-preview", True, THOUGHT + THOUGHT,
         [[f"{ASKED}{HERE}<think>", REST + END],
          [f"{ASKED}{HERE} \\boxed{{46}}{ASKED}{HERE}<think>", REST + END]]),
        ("ling-lite-1.5", True, THOUGHT, [[f"{ASKED}{HERE}", REPLY + END]]),
        ("ling-lite-1.5", True, PLAINLY, [[f"{ASKED}{HERE}", "46" + END]]),
        ("ring-mini-2.0", True, THOUGHT, [[f"{ASKED}{HERE}<think>\n", REST + END]]),
        ("ling-2.0", True, THOUGHT,
         [[f"{DETAILED} on<|role_end|>{ASKED_V2}",
           "\n<think>\n12 + 34 = 46\n</think>\n\n \\boxed{46}<|role_end|>"]]),
        ("ling-2.0", False, PLAINLY, [[f"{DETAILED} off<|role_end|>{ASKED_V2}", "46<|role_end|>"]]),
        ("ling-2.0", False, FOUR_TURNS[:1] + PLAINLY,
         [[f"{BRIEF}\ndetailed thinking off<|role_end|>{ASKED_V2}", "46<|role_end|>"]]),
        ("ling-2.0", False, PLAINLY + PLAINLY,
         [[f"{DETAILED} off<|role_end|>{ASKED_V2}", "46<|role_end|>", ASKED_V2, "46<|role_end|>"]]),
    ],
)  # fmt: skip
def test_a_turn_goes_on_from_the_prompt_that_is_sampled_from(
    second_family: Path, template: str, thinking: bool, messages: list[dict[str, str]], expected: list[list[str]]
):
    """The opened thought is not doubled; a turn without one answers the prompt of thinking off."""
    how = Prompting(suffix={}, template=template)
    tokenizer = load_tokenizer(str(second_family), how)
    sequences = parts_of(messages, tokenizer, how)
    runs = [[(i % 2 == 1, text) for i, text in enumerate(texts)] for texts in expected]
    assert [trained_texts(s, tokenizer) for s in sequences] == runs
    system = "Be brief." if messages[0]["role"] == "system" else ""
    sampled = Prompting(suffix={}, system=system, thinking=thinking, template=template)
    (prompt,) = make_prompts([ROW], tokenizer, sampled, room=999, domains=Domains())
    assert np.array_equal(sequences[0].token_ids[: len(prompt.token_ids)], prompt.token_ids)
    assert sequences[0].trained.argmax() == len(prompt.token_ids)


def test_what_is_trained_on_ends_with_the_stop_token_not_with_the_newline_behind_it(family: Path, tmp_path: Path):
    file = tmp_path / "qwen3.jinja"
    file.write_text(QWEN3)
    how = Prompting(suffix={}, template=str(file))
    tokenizer = load_tokenizer(str(family), how)
    for messages, off in ((THOUGHT, False), (PLAINLY, True)):
        runs = trained_texts(sequence_of(messages, tokenizer, how), tokenizer)
        assert [t for t, _ in runs] == [False, True]
        assert runs[0][1].endswith("</think>\n\n" if off else "<|im_start|>assistant\n")
        assert runs[1][1].endswith("46<|endoftext|>" if off else "\\boxed{46}<|endoftext|>")


def test_thinking_is_switched_off_where_the_template_can(family: Path, folder: Path):
    off = Prompting(suffix={}, thinking=False)
    assert prompt_text(load_tokenizer(str(family), off), off).endswith("off<role>HUMAN</role>What is 12 + 34?" + HERE)
    with pytest.raises(DataError, match=r"^prompting\.thinking: got false, expected true: the chat template has no"):
        load_tokenizer(str(folder), off)
    tokenizer = load_tokenizer(str(family), PLAIN)
    sequence = sequence_of(THOUGHT, tokenizer, off)  # then the model opens its thought itself
    assert trained_texts(sequence, tokenizer)[1] == (True, REPLY + "<|endoftext|>")


def test_a_template_that_never_ends_a_turn_is_refused(family: Path, tmp_path: Path):
    """Ling-lite's own: a model could not learn from it to stop."""
    file = tmp_path / "lings.jinja"
    file.write_text("{% for m in messages %}<role>{{ m.role | upper }}</role>{{ m.content }}{% endfor %}"
                    "{% if add_generation_prompt %}<role>ASSISTANT</role>{% endif %}")  # fmt: skip
    bare = shutil.copytree(family, tmp_path / "model")
    (bare / "config.json").write_text(json.dumps({"model_type": "qwen3_moe", "eos_token_id": 0}))
    how = Prompting(suffix={}, template=str(file))
    why = r"^rows:1: the chat template does not end .*, expected <\|endoftext\|>; set prompting\.stop .*lings\.jinja\)$"
    with pytest.raises(DataError, match=why):
        sequence_of(PLAINLY, load_tokenizer(str(bare), how), how)
    stops = how.model_copy(update={"stop": END})
    expected = [(False, "<role>USER</role>What is 12 + 34?<role>ASSISTANT</role>"), (True, "46" + END)]
    assert (
        trained_texts(sequence_of(PLAINLY, load_tokenizer(str(bare), stops), stops), load_tokenizer(str(bare), stops))
        == expected
    )


def test_a_conversation_that_the_template_refuses_is_named(family: Path, tmp_path: Path):
    file = tmp_path / "strict.jinja"
    file.write_text("{{ {'user': 1, 'assistant': 2}[messages[0].role] + ' ' }}")
    how = Prompting(template=str(file))
    why = r"^rows:1: the chat template refuses the conversation: TypeError: .*strict\.jinja\)$"
    with pytest.raises(DataError, match=why):
        sequence_of(PLAINLY, load_tokenizer(str(family), how), how)


@pytest.mark.parametrize(
    ("sampled", "verdict"),
    [
        ("12 + 34 = 46</think> \\boxed{46}", "pass"),
        ("is it \\boxed{46}? no</think> \\boxed{47}", "fail"),
        ("12 + 34 = \\boxed{46}", "fail"),  # the thought is never closed: no answer
    ],
)
def test_a_response_to_a_prompt_that_opens_the_thought_is_read_with_it(family: Path, sampled: str, verdict: str):
    tokenizer = load_tokenizer(str(family), PLAIN)
    (prompt,) = make_prompts([ROW], tokenizer, PLAIN, room=999, domains=Domains())
    ids = tuple(tokenizer(sampled, add_special_tokens=False)["input_ids"])
    stopped = Completion((*ids, tokenizer.eos_token_id), (0.0,) * (len(ids) + 1), "stop", 0)
    text = thinking_prefix(prompt, tokenizer) + read(stopped, tokenizer)
    assert text == "<think>" + sampled
    cut = Completion(ids, (0.0,) * len(ids), "length", 0)
    assert read(cut, tokenizer) == sampled
    assert verify_math(text, prompt.reference).kind == verdict
