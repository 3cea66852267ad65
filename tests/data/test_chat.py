"""What is sampled from and what is trained on are the same tokens, and only the assistant's are trained."""

from __future__ import annotations

import shutil
from itertools import groupby
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from ringrl.algo.pack import Strand
from ringrl.config import Prompting
from ringrl.data.chat import load_tokenizer, make_prompts, make_strand, template_hash
from ringrl.data.tiny import build_model
from ringrl.errors import DataError

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


def trained_texts(strand: Strand, tokenizer: PreTrainedTokenizerBase) -> list[tuple[bool, str]]:
    """Runs of trained and untrained tokens as text."""
    pairs = zip(strand.trained, strand.token_ids, strict=True)
    return [(key, tokenizer.decode([i for _, i in run])) for key, run in groupby(pairs, key=lambda p: p[0])]


def test_only_what_the_assistant_says_is_trained_on_in_every_turn(tokenizer: PreTrainedTokenizerBase):
    assert trained_texts(make_strand(FOUR_TURNS, tokenizer, "rows:1"), tokenizer) == [
        (False, "<role>SYSTEM</role>Be brief.<role>HUMAN</role>What is 12 + 34?<role>ASSISTANT</role>"),
        (True, REPLY + "<|endoftext|>"),
        (False, "<role>HUMAN</role>Sure?<role>ASSISTANT</role>"),
        (True, SECOND + "<|endoftext|>"),
    ]


def test_every_turn_ends_with_a_trained_end_of_sequence(tokenizer: PreTrainedTokenizerBase):
    strand = make_strand(FOUR_TURNS, tokenizer, "rows:1")
    ends = [t for i, t in zip(strand.token_ids, strand.trained, strict=True) if i == tokenizer.eos_token_id]
    assert ends == [True, True]
    assert strand.trained[0] is False
    assert strand.weight == 1.0


@pytest.mark.parametrize("how", [PLAIN, Prompting(), Prompting(system="Be brief.")])
def test_the_prompt_has_the_same_tokens_when_trained_on_and_when_sampled_from(
    tokenizer: PreTrainedTokenizerBase, how: Prompting
):
    (prompt,) = make_prompts([ROW], tokenizer, how, room=999)
    suffix = how.suffix.get("math", "")
    system = [{"role": "system", "content": how.system}] if how.system else []
    user = {"role": "user", "content": ROW["problem"] + (f"\n{suffix}" if suffix else "")}
    strand = make_strand([*system, user, {"role": "assistant", "content": REPLY}], tokenizer, "rows:1")
    n = len(prompt.token_ids)
    assert strand.token_ids[:n] == prompt.token_ids
    assert strand.trained == (False,) * n + (True,) * (len(strand.trained) - n)
    assert tokenizer.decode(prompt.token_ids).endswith("<role>ASSISTANT</role>")


def test_prompts_carry_what_the_verifier_needs_and_no_more(tokenizer: PreTrainedTokenizerBase):
    code = {"id": 7, "domain": "code", "problem": "echo", "tests": [{"input": "1", "output": "1"}], "entry_point": "f"}
    prompts = make_prompts([ROW, code], tokenizer, Prompting(), room=999)
    assert [(p.id, p.domain) for p in prompts] == [("sum-1", "math"), ("7", "code")]
    assert prompts[0].reference == {"answer": "46"}
    assert prompts[1].reference == {"tests": code["tests"], "entry_point": "f"}
    assert "```python" in tokenizer.decode(prompts[1].token_ids)
    assert "boxed" not in tokenizer.decode(prompts[1].token_ids)


def test_a_prompt_that_is_too_long_is_named_at_the_exact_length(tokenizer: PreTrainedTokenizerBase):
    (prompt,) = make_prompts([ROW], tokenizer, PLAIN, room=999)
    n = len(prompt.token_ids)
    assert len(make_prompts([ROW], tokenizer, PLAIN, room=n + 1)) == 1
    assert len(make_prompts([ROW], tokenizer, Prompting(suffix={}, max_tokens=n), room=999)) == 1
    for how, room in ((PLAIN, n), (Prompting(suffix={}, max_tokens=n - 1), 999)):
        with pytest.raises(DataError, match=f"^sum-1: the prompt has {n} tokens, expected at most {n - 1}$"):
            make_prompts([ROW], tokenizer, how, room)


def test_a_configured_template_replaces_the_tokenizers(folder: Path, tmp_path: Path):
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}")
    mine = load_tokenizer(str(folder), Prompting(suffix={}, template=str(file)))
    (prompt,) = make_prompts([ROW], mine, PLAIN, room=999)
    assert mine.decode(prompt.token_ids) == "[user]What is 12 + 34?"
    assert template_hash(mine) != template_hash(load_tokenizer(str(folder), PLAIN))


def test_a_template_that_rewrites_earlier_turns_is_refused(folder: Path, tmp_path: Path):
    file = tmp_path / "last.jinja"
    file.write_text("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}")
    forgetful = load_tokenizer(str(folder), Prompting(template=str(file)))
    with pytest.raises(DataError, match="rewrites earlier turns"):
        make_strand(FOUR_TURNS, forgetful, "rows:1")


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
    with pytest.raises(DataError, match=r"no tokenizer_config\.json"):
        load_tokenizer(str(tmp_path), PLAIN)
