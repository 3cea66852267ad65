"""What is trained on is what was said, under the prompt that sampling sends, whatever template and tokenizer do; what
cannot be is refused in one line that names row and template."""

from __future__ import annotations

import json
import shutil
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ringrl.algo.pack import TokenSequence
from ringrl.config.sections import Prompting, Source
from ringrl.data.chat import load_tokenizer, make_prompts, make_sequences, turn_end
from ringrl.data.source import read_conversations
from ringrl.data.tiny import build_model
from ringrl.data.turns import TurnEnd
from ringrl.domains import Domains
from ringrl.errors import DataError

END = "<|endoftext|>"
THOUGHT = "<think>\n2 and 2\n</think>\n\n4"
ASK, AGAIN = {"role": "user", "content": "What is 2+4?"}, {"role": "user", "content": "And 4?"}
HEAD = "{%- for m in messages -%}{%- if m.role == 'assistant' -%}"
TAIL = "{%- else -%}{{ '<|' + m.role + '|>' + m.content }}{%- endif -%}{%- endfor -%}"
OPENS = "{%- if add_generation_prompt -%}{{ '<|assistant|><think>' }}{%- endif -%}"
PLAIN_PROMPT = "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"


def says(body: str, prompt: str = PLAIN_PROMPT) -> str:
    """A template by what it writes for the assistant."""
    return HEAD + "{{ " + body + " }}" + TAIL + prompt


VERBATIM = says("'<|assistant|>' + m.content + eos_token")
APART = says("'<|assistant|><think>' + (m.reasoning_content or '') + '</think>' + m.content + eos_token", OPENS)
LAST = "(m.content if loop.last else m.content.split('</think>')[-1].strip())"
LAST_THINKS = says(f"'<|assistant|>' + {LAST} + eos_token")
DISTILLED = says("'<|assistant|>' + m.content.split('</think>')[-1].strip() + eos_token", OPENS)
DROPS = says("'<|assistant|>' + m.content.split('</think>')[-1] + eos_token")
CLOSES = says("'<|assistant|></think>' + m.content.split('</think>')[-1] + eos_token", OPENS)
OPENS_ALWAYS = says("'<|assistant|><think>' + m.content + eos_token", OPENS)
SPACED = says("' <|assistant|>' + m.content + eos_token")
KEEPS = says("'<|assistant|>' + (m.content if keep_cots else '<think> </think>' + m.content.split('</think>')[-1]) "
             "+ eos_token")  # fmt: skip
PARTS = VERBATIM.replace("m.content", "m.content[0].text")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("turns") / "model"
    build_model(out, ["2 and 2 is 4"] * 9, 0, vocab_size=300, layers=1, hidden=32, experts=2, moe_intermediate=32)
    return out


def said(answer: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": answer, **more}


def sequences(
    model: Path, template: str, *messages: dict[str, Any], how: Prompting | None = None
) -> list[list[tuple[bool, str]]]:
    """Per sequence its runs of trained and untrained text."""
    how = how or Prompting(suffix={})
    file = model.parent / "data.jsonl"
    file.write_text(json.dumps({"messages": messages}))
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = template
    rows = list(read_conversations(Source(files=(str(file),))))
    [made] = make_sequences(rows, tokenizer, how, turn_end(str(model), tokenizer, how))
    return [runs(s, tokenizer) for s in made]


def runs(sequence: TokenSequence, tokenizer: Any) -> list[tuple[bool, str]]:
    pairs = zip(sequence.trained.tolist(), sequence.token_ids.tolist(), strict=True)
    return [(key, tokenizer.decode([i for _, i in run])) for key, run in groupby(pairs, key=lambda p: p[0])]


@pytest.mark.parametrize(
    ("template", "answer", "prompt", "reply"),
    [
        (VERBATIM, THOUGHT, "<|assistant|>", THOUGHT),
        (APART, THOUGHT, "<|assistant|><think>", "2 and 2</think>4"),  # which folded would be doubled
        (APART.replace("reasoning_content", "thinking"), THOUGHT, "<|assistant|><think>", "2 and 2</think>4"),
        (APART, "4", "<|assistant|><think>", "</think>4"),  # the template's own empty thought
        (DISTILLED, THOUGHT, "<|assistant|><think>", "\n2 and 2\n</think>\n\n4"),
        (DISTILLED, "4", "<|assistant|><think>", "\n\n</think>\n\n4"),  # its prompts open a thought in any case
        (DROPS, THOUGHT, "<|assistant|>", THOUGHT),  # as R1-0528: it leaves out what was said before the last prompt
        (DROPS, "4", "<|assistant|>", "4"),
        (CLOSES, THOUGHT, "<|assistant|><think>", "\n2 and 2\n</think>\n\n4"),  # as DeepSeek-V3.1-Terminus
        (OPENS_ALWAYS, THOUGHT, "<|assistant|><think>", "\n2 and 2\n</think>\n\n4"),  # as Nemotron-Nano-v2
        (SPACED, THOUGHT, "<|assistant|>", THOUGHT),  # as Molmo2
        (KEEPS, THOUGHT, "<|assistant|>", THOUGHT),  # as Hermes 4
        (PARTS, THOUGHT, "<|assistant|>", THOUGHT),  # as MiniMax-M1
    ],
)
def test_question_thought_and_answer_are_there_once(
    model: Path, template: str, answer: str, prompt: str, reply: str
) -> None:
    assert sequences(model, template, ASK, said(answer)) == [
        [(False, f"<|user|>What is 2+4?{prompt}"), (True, reply + END)]
    ]


@pytest.mark.parametrize(
    ("template", "answer", "why"),
    [
        (says("'<|assistant|><think></think>' + m.content.split('</think>')[-1] + eos_token", OPENS), THOUGHT,
         "leaves out the thought"),  # and closes it at once
        (says("'<|assistant|><think> </think>' + m.content.split('</think>')[-1] + eos_token"), THOUGHT,
         "leaves out the thought"),  # and writes an empty one
        (says("'<|assistant|><think>' + m.content.split('</think>')[-1] + eos_token", OPENS), THOUGHT,
         "leaves out the thought"),  # and never closes it
        (says("'<|assistant|><think></think>' + m.content + eos_token", OPENS), THOUGHT, "closes the thought twice"),
        (says("'<|assistant|>' + m.content + m.content + eos_token"), "4", "writes the answer 2 times"),
        (says("'<|assistant|>' + m.content[:2] + eos_token"), "fourteen is it", "leaves out the answer"),
        (says("'<|assistant|>' + m.content | upper + eos_token"), "so it is", "changes the answer"),
        (says("'<|assistant|>' + m.content + eos_token").replace("+ m.content }}", "}}"), "4", "role 'user'"),
        (says("'<|said|>' + m.content + eos_token"), "4", "writes a turn otherwise than the prompt before it"),
        (says("'<|assistant|>\n' + m.content"), "4", "does not end the assistant's turn"),
        (says("'<|assistant|>' + m.content + '<|bye|>'"), "4", r"turn with '<\|bye\|>', expected <\|endoftext"),
        (says("'<|assistant|>' + 1"), "4", "refuses the conversation: TypeError"),
    ],
)  # fmt: skip
def test_a_template_that_writes_something_else_is_refused(model: Path, template: str, answer: str, why: str) -> None:
    with pytest.raises(
        DataError, match=rf"^[^\n]*data\.jsonl:1: the chat template [^\n]*{why}[^\n]* \(template: [^\n]*$"
    ):
        sequences(model, template, ASK, said(answer))


def test_turns_before_which_the_template_rewrites_are_trained_on_apart(model: Path) -> None:
    first, second = f"<|user|>What is 2+4?<|assistant|>{THOUGHT}{END}", "<|user|>And 4?<|assistant|>"
    assert sequences(model, VERBATIM, ASK, said(THOUGHT), AGAIN, said(THOUGHT)) == [
        [(False, first.removesuffix(THOUGHT + END)), (True, THOUGHT + END), (False, second), (True, THOUGHT + END)]
    ]
    assert sequences(model, LAST_THINKS, ASK, said(THOUGHT), AGAIN, said(THOUGHT)) == [
        [(False, first.removesuffix(THOUGHT + END)), (True, THOUGHT + END)],
        [(False, first.replace(THOUGHT, "4") + second), (True, THOUGHT + END)],
    ]


@pytest.mark.parametrize("flag", [{"weight": 0}, {"train": False}, {"loss": False, "weight": None}])
def test_a_turn_that_is_not_to_be_trained_on_is_not(model: Path, flag: dict[str, Any]) -> None:
    assert sequences(model, VERBATIM, ASK, said("6", **flag), AGAIN, said("4", weight=1)) == [
        [(False, f"<|user|>What is 2+4?<|assistant|>6{END}<|user|>And 4?<|assistant|>"), (True, "4" + END)]
    ]
    assert sequences(model, VERBATIM, ASK, said("6", **flag)) == []


def test_null_keys_as_parquet_fills_them_in_are_none(model: Path) -> None:
    """`tool_calls | length` of None is a TypeError."""
    counts = "{%- if 'tool_calls' in m and m.tool_calls|length > 0 -%}{{ 1 }}{%- endif -%}{%- if"
    calls = VERBATIM.replace(HEAD, HEAD.replace("{%- if", counts))
    nulls = {"tool_calls": None, "reasoning_content": None}
    assert sequences(model, calls, ASK | nulls, said("4", **nulls)) == sequences(model, VERBATIM, ASK, said("4"))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": [{"role": "human", "content": "2?"}, said("4")]}, "role: got 'human', expected one of system, "),
        ({"messages": [ASK, said("4", weight=0.5)]}, r"weight: got 0\.5, expected 0 or 1"),
        ({"messages": [ASK | {"weight": 1}, said("4")]}, "weight: got 1 for 'user', only an assistant's turn"),
        ({"messages": [ASK, said("4", tool_calls=[{"id": 1}])]}, r"tool_calls: got \[\{'id': 1\}\], expected none"),
        ({"messages": [ASK, said("4")], "tools": [{"name": "f"}]}, r"tools: got \[\{'name': 'f'\}\], expected none"),
        ({"messages": [ASK, said(" ")]}, "an assistant's turn without an answer"),
        ({"messages": [ASK, said("<think>so</think>\n")]}, "an assistant's turn without an answer"),
        ({"messages": [ASK, said("<think>so")]}, "an assistant's turn with a thought without </think>"),
        ({"messages": [ASK, said("4", content_type=1), 5 * "word " * 99]}, r"got 'word (word )*\w*\.\.\., expected"),
    ],
)
def test_what_a_row_says_is_never_ignored(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row))
    with pytest.raises(DataError, match=rf"^{file}:1: [^\n]*{why}[^\n]{{,80}}$"):
        list(read_conversations(Source(files=(str(file),))))


@pytest.mark.parametrize("answer", [f"4{END}", f"4{END} and more"])
def test_a_stop_token_in_what_is_said_is_refused(model: Path, answer: str) -> None:
    with pytest.raises(DataError, match=r"data\.jsonl:1: the assistant's turn has <\|endoftext\|> in the middle"):
        sequences(model, VERBATIM, ASK, said(answer))


def test_a_role_that_the_template_leaves_out_is_named(model: Path) -> None:
    silent = VERBATIM.replace("{%- else -%}", "{%- elif m.role == 'user' -%}")
    for role in ("system", "developer"):
        with pytest.raises(DataError, match=f"the chat template leaves out the content of role '{role}'"):
            sequences(model, silent, {"role": role, "content": "Be brief."}, ASK, said("4"))


# ---- what ends a turn, and what ends generation


def folder_with(model: Path, out: Path, template: str, eos: Any, **more: Any) -> Path:
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors"))
    (out / "chat_template.jinja").write_text(template)
    for name in ("config.json", "generation_config.json"):
        (out / name).write_text(json.dumps(json.loads((model / name).read_text()) | {"eos_token_id": eos} | more))
    return out


ROW = {"id": "p-1", "domain": "math", "problem": "2 + 4", "answer": "6"}


def test_an_end_of_turn_that_does_not_end_generation_is_refused_by_every_command(model: Path, tmp_path: Path) -> None:
    how = Prompting(suffix={})
    other = folder_with(model, tmp_path / "other", VERBATIM, 7)
    with pytest.raises(
        DataError, match=r"turn with '<\|endoftext\|>', expected .*, which end generation; set .*eos_token_id"
    ):
        load_tokenizer(str(other), how)
    none = folder_with(model, tmp_path / "none", VERBATIM, None)
    with pytest.raises(DataError, match=r"got no eos_token_id in generation_config\.json"):
        load_tokenizer(str(none), how)
    for eos in (0, [7, 0]):
        several = folder_with(model, tmp_path / f"{eos}", VERBATIM, eos)
        tokenizer = load_tokenizer(str(several), how)
        assert turn_end(str(several), tokenizer, how).ids == {0} | ({7} if eos else set())


def test_prompting_stop_ends_turns_that_a_template_leaves_open(model: Path, tmp_path: Path) -> None:
    open_ = says("'<|assistant|>' + m.content + '\n'")
    assert sequences(model, open_, ASK, said("4"), AGAIN, said("8"), how=Prompting(suffix={}, stop=END)) == [
        [(False, "<|user|>What is 2+4?<|assistant|>"), (True, "4" + END)],
        [(False, "<|user|>What is 2+4?<|assistant|>4\n<|user|>And 4?<|assistant|>"), (True, "8" + END)],
    ]
    glm = folder_with(model, tmp_path / "glm", open_, [0, 1], architectures=["Glm4MoeForCausalLM"])
    tokenizer = AutoTokenizer.from_pretrained(glm)
    assert tokenizer.convert_ids_to_tokens(1) != "<|user|>"  # so that the family's stop token would not end generation
    with pytest.raises(DataError, match="does not end the assistant's turn"):
        sequences(glm, open_, ASK, said("4"))
    with pytest.raises(DataError, match=r"^prompting\.stop: got '!', expected what ends generation: <\|endoftext\|>$"):
        sequences(model, open_, ASK, said("4"), how=Prompting(suffix={}, stop="!"))
    two = folder_with(model, tmp_path / "two", VERBATIM, [0, 1])
    second = str(tokenizer.convert_ids_to_tokens(1))
    with pytest.raises(DataError, match=r"ends the assistant's turn with '<\|endoftext\|>', expected prompting\.stop="):
        sequences(two, VERBATIM, ASK, said("4"), how=Prompting(suffix={}, stop=second))


def test_a_prompt_without_its_problem_is_refused(model: Path, tmp_path: Path) -> None:
    images = "{%- for m in messages -%}{%- for p in m.content -%}{{ p.image }}{%- endfor -%}{%- endfor -%}"
    how = Prompting(suffix={})
    tokenizer = load_tokenizer(str(folder_with(model, tmp_path / "images", images, 0)), how)
    with pytest.raises(DataError, match="p-1: the chat template leaves out the content of role 'user'"):
        make_prompts([ROW], tokenizer, how, 99, Domains())


# ---- tokenizers that read across borders, or begin every text with a space


def sentencepiece(every: bool) -> PreTrainedTokenizerFast:
    """As Llama 2's: a text begins with a space of its own; with `every`, so does what follows a special token."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    corpus = ["User: What is 2+4?\nAssistant: 4 and so on\n[INST] And 4? [/INST] thinks <think>"] * 9
    if every:
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        bpe.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # no token has a space but at its begin
    else:
        bpe.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first")
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    bpe.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


INST = ("{%- for m in messages -%}{%- if m.role == 'user' -%}{{ '<s>[INST] ' + m.content + ' [/INST]' }}"
        "{%- else -%}{{ ' ' + m.content + ' </s>' }}{%- endif -%}{%- endfor -%}")  # fmt: skip
LINES = ("{%- for m in messages -%}{{ {'user': 'User: ', 'assistant': 'Assistant: '}[m.role] + m.content }}"
         "{{ '</s>' if m.role == 'assistant' }}{{ '\n' }}{%- endfor -%}"
         "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}")  # fmt: skip


@pytest.mark.parametrize(("template", "every", "parts"), [(INST, True, 1), (LINES, True, 1), (LINES, False, 2)])
def test_tokens_are_those_of_the_rendered_text(template: str, every: bool, parts: int) -> None:
    """Before every turn those of the prompt as it is sampled from, then those of the turn in its place."""
    tokenizer = sentencepiece(every)
    tokenizer.chat_template = template
    messages = [ASK, said("4 and so on"), AGAIN, said("so on")]
    end = TurnEnd(frozenset([2]), ("</s>",))
    [made] = make_sequences([("rows:1", messages)], tokenizer, Prompting(), end)
    assert len(made) == parts
    for k, sequence in ((1, made[0]), (3, made[-1])):
        prompt = tokenizer.apply_chat_template(messages[:k], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(messages[: k + 1], tokenize=False).rstrip("\n")
        before, ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, whole))
        n = len(before)
        assert ids[:n] == before
        assert list(sequence.token_ids[: len(ids)]) == ids
        assert sequence.trained[n - 1 : len(ids)].tolist() == [False, *[True] * (len(ids) - n)]


def test_a_border_within_a_token_leaves_the_prompt_as_it_is_sampled_from() -> None:
    """Two newlines are one token of this tokenizer; the prompt ends in one, the reply begins with one."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=["</s>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    bpe.train_from_iterator(["\n\n"] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>")
    tokenizer.chat_template = ("{%- for m in messages -%}{{ m.role + '\n' + ('\n' if m.role == 'assistant' else '') }}"
                               "{{ m.content + ('</s>' if m.role == 'assistant' else ' ') }}{%- endfor -%}"
                               "{%- if add_generation_prompt -%}{{ 'assistant\n' }}{%- endif -%}")  # fmt: skip
    assert len(tokenizer("\n\n")["input_ids"]) == 1
    [[sequence]] = make_sequences(
        [("r:1", [ASK, said("4")])], tokenizer, Prompting(), TurnEnd(frozenset([0]), ("</s>",))
    )
    assert runs(sequence, tokenizer) == [(False, "user\nWhat is 2+4? assistant\n"), (True, "\n4</s>")]
