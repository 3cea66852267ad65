"""Chat templates: problems to prompts, conversations to trained sequences. Token ids are made here, once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import jinja2
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ringrl.algo.pack import TokenSequence
from ringrl.config.sections import Prompting
from ringrl.data.source import THINK, Row, messages_of
from ringrl.domains import Domains
from ringrl.errors import DataError, PromptTooLong
from ringrl.types import Prompt

TEMPLATES = Path(__file__).parent / "templates"  # NAME.jinja
FAMILIES = {"BailingMoeForCausalLM": "bailing", "BailingMoeV2ForCausalLM": "bailing_v2"}


def load_tokenizer(model: str, prompting: Prompting) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with the configured chat template if there is one, or its family's if it has none.

    Raises:
        DataError: no tokenizer in the folder, no chat template anywhere, or one that cannot switch thinking off.
    """
    if not (Path(model) / "tokenizer_config.json").is_file():
        raise DataError(f"{model}: no tokenizer_config.json, expected a model folder with its tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(model)
    if name := prompting.template or ("" if tokenizer.chat_template else _family(model)):
        tokenizer.chat_template = _template(name)
    if not tokenizer.chat_template:
        raise DataError(f"{model}: the tokenizer has no chat template, set prompting.template")
    if not prompting.thinking and "enable_thinking" not in str(tokenizer.chat_template):
        raise DataError("prompting.thinking: got false, expected true: the chat template has no enable_thinking")
    return tokenizer


def _family(model: str) -> str:
    """The name of the template that the models of this architecture were made with, "" for none."""
    file = Path(model) / "config.json"
    architectures = json.loads(file.read_text()).get("architectures") if file.is_file() else None
    return next((FAMILIES[a] for a in architectures or () if a in FAMILIES), "")


def _template(name: str) -> str:
    known = {file.stem: file for file in sorted(TEMPLATES.glob("*.jinja"))}
    file = known.get(name, Path(name))
    if not file.is_file():
        raise DataError(f"prompting.template: {name}: no such file, expected one, or {' or '.join(known)}")
    return file.read_text(encoding="utf-8")


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def make_prompts(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, how: Prompting, room: int, domains: Domains
) -> list[Prompt]:
    """Problems with the template applied, ready to sample from.

    Args:
        room: total tokens of prompt and response; a prompt must leave at least one.

    Raises:
        PromptTooLong: a prompt is longer than `prompting.max_tokens` or leaves no room; names the row.
        DataError: the template refuses a row.
    """
    most = min(how.max_tokens, room - 1)
    return [_prompt(row, tokenizer, how, most, domains) for row in rows]


def _prompt(row: Row, tokenizer: PreTrainedTokenizerBase, how: Prompting, most: int, domains: Domains) -> Prompt:
    text = _render(messages_of(row, how, domains), tokenizer, how.thinking, True, str(row["id"]))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) > most:
        raise PromptTooLong(f"{row['id']}: the prompt has {len(ids)} tokens, expected at most {most}")
    return Prompt(str(row["id"]), row["domain"], tuple(ids), domains.reference(row))


def make_sequence(
    messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, how: Prompting, where: str
) -> TokenSequence:
    """A conversation as one sequence; only what the assistant says is trained on (weight 1, set later).

    Each assistant turn is the text that the template adds to the prompt before it, to the end of the turn. Prompt and
    turn are encoded apart, so that the prompt's tokens are the same here as when sampling, and what is trained on is
    what would be sampled. A turn without a thought answers the prompt of `thinking: false`.

    Raises:
        DataError: the template rewrites earlier turns, so that a turn does not extend what came before it, or does not
            end a turn, so that stopping could not be learnt.
    """
    ids: list[int] = []
    trained: list[bool] = []
    done = ""
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        thinking = how.thinking and message["content"].startswith(THINK)
        before = _render(messages[:i], tokenizer, thinking, True, where)
        after = _render(messages[: i + 1], tokenizer, thinking, False, where)
        if not before.startswith(done) or not after.startswith(before):
            raise DataError(f"{where}: the chat template rewrites earlier turns, expected one that only appends")
        turn = after[len(before) :]
        said = turn.rstrip()  # Qwen's has a newline behind the stop token, where sampling ends
        if (content := message["content"].rstrip()) and content.endswith(said):
            raise DataError(f"{where}: the chat template does not end the assistant's turn, expected a stop token; set "
                            f"prompting.template")  # fmt: skip
        for text, train in ((before[len(done) :], False), (said, True), (turn[len(said) :], False)):
            piece = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += piece
            trained += [train] * len(piece)
        done = after
    return TokenSequence(tuple(ids), tuple(trained), 1.0)


def _render(
    messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, thinking: bool, prompt: bool, where: str
) -> str:
    """Raises DataError when the template refuses the conversation."""
    try:
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=prompt, enable_thinking=thinking
        )
    except jinja2.TemplateError as e:
        raise DataError(f"{where}: the chat template refuses the conversation: {' '.join(str(e).split())}") from None
