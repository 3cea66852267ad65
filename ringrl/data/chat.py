"""Chat templates: from problems to prompts, from conversations to SFT sequences. The only place that tokenizes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from ringrl.algo.pack import TokenSequence
from ringrl.config.sections import Prompting
from ringrl.data.render import TEMPLATES, render
from ringrl.data.source import THINK, Row, messages_of
from ringrl.domains import Domains
from ringrl.errors import DataError, PromptTooLong
from ringrl.models.loading import read_tokenizer
from ringrl.types import Prompt

FAMILIES = {"BailingMoeForCausalLM": "bailing", "BailingMoeV2ForCausalLM": "bailing_v2"}


def load_tokenizer(model: str, prompting: Prompting) -> PreTrainedTokenizerBase:
    """The model's tokenizer with the configured chat template, or with its model family's if it has none of its own.

    Raises:
        DataError: no tokenizer in the folder, no chat template, or one that cannot switch thinking off as configured.
    """
    tokenizer = read_tokenizer(model)
    if name := prompting.template or ("" if tokenizer.chat_template else _family(model)):
        tokenizer.chat_template = _template(name)
    if not tokenizer.chat_template:
        raise DataError(f"{model}: the tokenizer has no chat template, set prompting.template")
    if not prompting.thinking and "enable_thinking" not in str(tokenizer.chat_template):
        raise DataError("prompting.thinking: got false, expected true: the chat template has no enable_thinking")
    return tokenizer


def _family(model: str) -> str:
    """Name of the template that models of this architecture were trained with, "" if unknown."""
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
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, prompting: Prompting, room: int, domains: Domains
) -> list[Prompt]:
    """Tokenized prompts of problems, with the chat template applied.

    Args:
        room: most tokens of prompt and response together; a prompt must leave at least one.

    Raises:
        PromptTooLong: a prompt is longer than `prompting.max_tokens` or leaves no room; names the row.
        DataError: the template refuses a row.
    """
    limit = min(prompting.max_tokens, room - 1)
    return [_prompt(row, tokenizer, prompting, limit, domains) for row in rows]


def _prompt(row: Row, tokenizer: PreTrainedTokenizerBase, prompting: Prompting, limit: int, domains: Domains) -> Prompt:
    text = _render(messages_of(row, prompting, domains), tokenizer, prompting.thinking, True, str(row["id"]))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) > limit:
        raise PromptTooLong(f"{row['id']}: the prompt has {len(ids)} tokens, expected at most {limit}")
    return Prompt(str(row["id"]), row["domain"], tuple(ids), domains.reference(row))


def make_sequence(
    messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, prompting: Prompting, where: str
) -> TokenSequence:
    """A conversation as one sequence; only assistant turns are trained on (weight 1, set later).

    An assistant turn is the text that the template appends to the prompt before it, up to the end of the turn. Prompt
    and turn are encoded separately, so that the prompt's tokens equal those at sampling time, and training sees what
    would be sampled. A turn without a thought follows the prompt rendered with `thinking: false`.

    Raises:
        DataError: the template rewrites earlier turns, so that a turn does not extend what came before it; or it does
            not mark the end of a turn, so that the model could not learn to stop.
    """
    ids: list[int] = []
    trained: list[bool] = []
    rendered = ""
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        thinking = prompting.thinking and message["content"].startswith(THINK)
        before = _render(messages[:i], tokenizer, thinking, True, where)
        after = _render(messages[: i + 1], tokenizer, thinking, False, where)
        if not before.startswith(rendered) or not after.startswith(before):
            raise DataError(f"{where}: the chat template rewrites earlier turns, expected one that only appends")
        turn = after[len(before) :]
        reply = turn.rstrip()  # Qwen's template adds a newline after the stop token, where sampling ends
        if (content := message["content"].rstrip()) and content.endswith(reply):
            raise DataError(f"{where}: the chat template does not end the assistant's turn, expected a stop token; set "
                            f"prompting.template")  # fmt: skip
        for text, train in ((before[len(rendered) :], False), (reply, True), (turn[len(reply) :], False)):
            piece = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += piece
            trained += [train] * len(piece)
        rendered = after
    return TokenSequence(tuple(ids), tuple(trained), 1.0)


def _render(
    messages: Sequence[dict[str, str]], tokenizer: PreTrainedTokenizerBase, thinking: bool, prompt: bool, where: str
) -> str:
    """Raises DataError when the template refuses the conversation."""
    if not messages:
        raise DataError(f"{where}: got an assistant's turn first, expected something that it answers")
    request = {**tokenizer.special_tokens_map, "conversations": [messages], "add_generation_prompt": prompt,
               "chat_template": tokenizer.get_chat_template(), "enable_thinking": thinking}  # fmt: skip
    try:
        return render(request)
    except DataError as e:
        raise DataError(f"{where}: {e}") from None
