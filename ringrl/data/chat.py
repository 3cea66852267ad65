"""Chat templates: from problems to prompts, from conversations to SFT sequences. The only place that tokenizes.

What a turn is, as text, is `ringrl.data.turns`'. Invariants: the prompt of a sequence has the tokens that sampling
would send; only what the assistant says is trained on; the last trained token of a turn ends generation, no other does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ringrl.algo.pack import TokenSequence
from ringrl.config.sections import Prompting
from ringrl.data.messages import Message
from ringrl.data.render import TEMPLATES
from ringrl.data.source import Row, messages_of
from ringrl.data.turns import ChatTemplate, Turn, TurnEnd, turns_of
from ringrl.domains import Domains
from ringrl.errors import DataError, PromptTooLong
from ringrl.models.loading import read_tokenizer
from ringrl.types import Prompt

# by architecture: the template of models whose tokenizer has none, and what ends a turn where templates do not say it
FAMILIES = {
    "BailingMoeForCausalLM": ("ring-lite", "<|endoftext|>"),  # the eos of Ling-lite's and Ring-lite's generation_config
    "BailingMoeV2ForCausalLM": ("ling-2.0", "<|endoftext|>"),  # sources of this and the next in docs/templates.md
    "Glm4MoeForCausalLM": ("", "<|user|>"),  # GLM-4.5 ends with whatever opens the next turn
}
PROBE = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "It is four."}]
BATCH = 256  # conversations encoded together, by as many threads as there are cores


def load_tokenizer(model: str, prompting: Prompting) -> PreTrainedTokenizerBase:
    """The model's tokenizer with the configured chat template, or with its model family's if it has none of its own.

    Raises:
        DataError: no tokenizer in the folder, no chat template, one that cannot switch thinking off as configured, or
            one that ends turns with a token that does not end generation.
    """
    tokenizer = read_tokenizer(model)
    if name := prompting.template or ("" if tokenizer.chat_template else _family(model)[0]):
        tokenizer.chat_template = _template(name)
    if not tokenizer.chat_template:
        raise DataError(f"{model}: the tokenizer has no chat template, set prompting.template")
    if not prompting.thinking and not chat_template(tokenizer, prompting).switches_thinking:
        raise DataError("prompting.thinking: got false, expected true: the chat template has no enable_thinking")
    _check_end(tokenizer, prompting, turn_end(model, tokenizer, prompting))
    return tokenizer


def chat_template(tokenizer: PreTrainedTokenizerBase, prompting: Prompting) -> ChatTemplate:
    name = prompting.template or str(tokenizer.name_or_path)
    return ChatTemplate(str(tokenizer.get_chat_template()), name, dict(tokenizer.special_tokens_map))


def turn_end(model: str, tokenizer: PreTrainedTokenizerBase, prompting: Prompting) -> TurnEnd:
    """What ends generation, by the model folder's generation_config.json or else config.json, as both engines read it;
    and what ends a turn where the template does not say it.

    Raises:
        DataError: nothing ends generation, or `prompting.stop` does not.
    """
    config = _json(Path(model) / "config.json")
    generation = Path(model) / "generation_config.json"
    config = config.get("text_config", config)
    ends = (_json(generation) if generation.is_file() else config).get("eos_token_id")
    ids = frozenset([ends] if isinstance(ends, int) else ends or [])
    if not ids:
        raise DataError(f"{model}: got no eos_token_id in generation_config.json or config.json, expected what ends "
                        f"generation")  # fmt: skip
    texts = tuple(str(tokenizer.convert_ids_to_tokens(i)) for i in sorted(ids) if i < len(tokenizer))
    if prompting.stop and prompting.stop not in texts:
        raise DataError(f"prompting.stop: got {prompting.stop!r}, expected what ends generation: {' or '.join(texts)}")
    stop = prompting.stop or _family(model)[1]
    if tokenizer.chat_template in {file.read_text(encoding="utf-8") for file in TEMPLATES.glob("*.jinja")}:
        stop = stop or str(tokenizer.eos_token)
    return TurnEnd(ids, texts, stop if stop in texts else "", bool(prompting.stop))


def _check_end(tokenizer: PreTrainedTokenizerBase, prompting: Prompting, end: TurnEnd) -> None:
    """Raises DataError if the template ends a turn with a special token, and generation would not end there."""
    template = chat_template(tokenizer, prompting)
    try:
        [text] = template.render([PROBE], False, False, "")
    except DataError:
        return  # a template that wants another conversation is not compared
    written = text.rpartition(PROBE[-1]["content"])[2]
    special = [token for token in tokenizer.get_added_vocab() if token in written]
    if special and not end.configured and not any(t in written for t in end.texts):
        raise template.refusal(
            "prompting", f"the chat template ends the assistant's turn with {written.strip()!r}, expected "
                         f"{' or '.join(end.texts)}, which end generation; set prompting.stop, or eos_token_id in "
                         f"generation_config.json")  # fmt: skip


def _json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _family(model: str) -> tuple[str, str]:
    """(template, stop) of the model's family, "" if unknown."""
    architectures = _json(Path(model) / "config.json").get("architectures")
    return next((FAMILIES[a] for a in architectures or () if a in FAMILIES), ("", ""))


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
        DataError: the template refuses a row, or leaves out its problem.
    """
    limit = min(prompting.max_tokens, room - 1)
    return [_prompt(row, tokenizer, prompting, limit, domains) for row in rows]


def _prompt(row: Row, tokenizer: PreTrainedTokenizerBase, prompting: Prompting, limit: int, domains: Domains) -> Prompt:
    template, messages = chat_template(tokenizer, prompting), messages_of(row, prompting, domains)
    [text] = template.render([messages], prompting.thinking, True, str(row["id"]))
    if lost := next((m["role"] for m in messages if m["content"].strip() not in text), ""):
        raise template.refusal(str(row["id"]), f"the chat template leaves out the content of role {lost!r}")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) > limit:
        raise PromptTooLong(f"{row['id']}: the prompt has {len(ids)} tokens, expected at most {limit}")
    return Prompt(str(row["id"]), row["domain"], np.array(ids), domains.reference(row))


def make_sequences(
    conversations: Iterable[tuple[str, Sequence[Message]]],
    tokenizer: PreTrainedTokenizerBase,
    prompting: Prompting,
    end: TurnEnd,
) -> Iterator[list[TokenSequence]]:
    """The sequences of each conversation, of ("file:line", messages), weight 1 each.

    One sequence has all turns of a conversation if the template only appends; a turn before which it rewrites earlier
    ones begins another. Conversations without a turn to train on have none.

    Raises:
        DataError: see `turns_of`; or the tokens of a turn do not end generation where it ends.
    """
    template, rows = chat_template(tokenizer, prompting), iter(conversations)
    while batch := list(islice(rows, BATCH)):
        chains = [_chains(turns_of(m, template, end, prompting.thinking, where)) for where, m in batch]
        texts = [text for row in chains for chain in row for text in _texts(chain)]
        encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])
        for row in chains:
            ids = [[next(encoded) for _ in _texts(chain)] for chain in row]
            yield [s for chain, i in zip(row, ids, strict=True) for s in _sequences(chain, i, tokenizer, end)]


def _chains(turns: Sequence[Turn]) -> list[list[Turn]]:
    """Turns split where a prompt is not what came before it and more."""
    chains: list[list[Turn]] = []
    for turn in turns:
        if chains and turn.prompt.startswith(chains[-1][-1].prompt + chains[-1][-1].reply):
            chains[-1].append(turn)
        else:
            chains.append([turn])
    return chains


def _texts(chain: Sequence[Turn]) -> list[str]:
    """What each turn's prompt adds to the turn before, and the whole."""
    said = ["", *(t.prompt + t.reply for t in chain)]
    return [*(t.prompt[len(before) :] for t, before in zip(chain, said, strict=False)), said[-1]]


def _sequences(
    chain: Sequence[Turn], encoded: Sequence[list[int]], tokenizer: PreTrainedTokenizerBase, end: TurnEnd
) -> list[TokenSequence]:
    """A chain as one sequence, with the tokens of the whole text; or turn by turn, where the tokens before a reply are
    not those of its prompt, because the tokenizer reads across the border or begins each text with a space."""
    *prompts, whole = encoded
    trained = [False] * len(whole)
    position = 0
    for prompt in prompts:
        begin = position + len(prompt)
        stop = min((whole.index(i, begin) for i in end.ids if i in whole[begin:]), default=None)
        if whole[position:begin] != prompt or stop is None:
            break
        position = stop + 1
        trained[begin:position] = [True] * (position - begin)
    else:
        if position == len(whole):
            return [TokenSequence(np.array(whole), np.array(trained), 1.0)]
    return [_apart(turn, tokenizer, end) for turn in chain]


def _apart(turn: Turn, tokenizer: PreTrainedTokenizerBase, end: TurnEnd) -> TokenSequence:
    """A turn whose prompt has the tokens that sampling would send."""
    texts = [turn.prompt, turn.reply, turn.prompt + turn.reply]
    prompt, reply, whole = tokenizer(texts, add_special_tokens=False)["input_ids"]
    if whole[: len(prompt)] == prompt:
        reply = whole[len(prompt) :]
    else:  # a token of the whole lies across the border; the reply may begin with a space of the tokenizer's own
        text, ways = tokenizer.decode(whole), (reply, reply[1:])
        reply = next((way for way in ways if tokenizer.decode(prompt + way) == text), [])
    ends = [i for i, t in enumerate(reply, 1) if t in end.ids]
    if not reply:
        raise DataError(f"{turn.where}: the tokenizer joins the end of the prompt and the assistant's turn")
    if ends != [len(reply)]:
        what = "in the middle, expected it at the end only" if ends else "not at its end, expected it there"
        raise DataError(f"{turn.where}: the assistant's turn has {' or '.join(end.texts)} {what}")
    return TokenSequence(np.array(prompt + reply), np.arange(len(prompt) + len(reply)) >= len(prompt), 1.0)
