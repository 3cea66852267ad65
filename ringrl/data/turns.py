"""The turns of an assistant as text: the prompt that sampling would send, and the reply that is trained on.

    prompt = the template on the messages before the turn, with its generation prompt
    whole  = the template on the messages up to the turn, without
    reply  = what whole adds to prompt, up to a token that ends generation

Templates come from strangers, so nothing about them is believed. Checked for every turn, or the row is refused:

1. Whole has every message's content, the turn's thought and its answer exactly once, unchanged but for space around
   them. It is rendered a second time with a mark inside each, which tells an answer "4" from the question "2 + 4".
2. Whole begins with prompt. Some templates write space, or the tags around a thought, otherwise in prompts than in what
   was said, or leave thoughts out of the latter; then the reply goes on from the prompt with thought and answer as the
   row has them, see `_joined` and `_thought_left_out`.
3. The thought is opened once and closed once, by prompt and reply together. Where there is none, neither is, unless the
   template writes an empty one, or a prompt that always opens a thought makes one necessary.
4. The reply ends with a token that ends generation: the template's, or `TurnEnd.stop` if the template has none.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ringrl.data.messages import APART, THINK, THOUGHT, Message, split_thought
from ringrl.data.render import render
from ringrl.errors import DataError

MARK = re.compile("\ue000(\\d+)\ue001")  # of Unicode's private use
FOLDED, OPENED = "", THINK  # layouts of thoughts: in the content, with and without the tag that opens them; otherwise
# the message key that holds them
KEEPS = ("keep_cots", "keep_past_thinking", "preserve_thinking")  # switches of templates: thoughts are written, too
EMPTY = f"\n\n{THOUGHT}\n\n"  # a thought that is none, behind a prompt that opens it
THE_THOUGHT, ANSWER = "the thought", "the answer"


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """What ends an assistant's turn."""

    ids: frozenset[int]  # generation's eos token ids
    texts: tuple[str, ...]  # the same tokens as text
    stop: str = ""  # one of `texts`, for templates that write none; "": those are refused
    configured: bool = False  # whether `stop` is `prompting.stop`


@dataclass(frozen=True, slots=True)
class Turn:
    where: str  # "file:line"
    prompt: str
    reply: str  # to the stop token


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    text: str
    name: str  # shown to the user
    special_tokens: dict[str, str]  # the tokenizer's, such as bos_token

    @property
    def layouts(self) -> tuple[str, ...]:
        """Ways to hand over thoughts, those first that the template reads."""
        read = [key for key in APART if re.search(rf"(\.|['\"]){key}\b(?!['\"]?\s*:)", self.text)]
        return (*read, FOLDED, OPENED)

    @property
    def switches_thinking(self) -> bool:
        return bool(re.search(r"\b(enable|open)_thinking\b|\bthinking (is|==)|\b(if|not|and|or) thinking\b", self.text))

    @property
    def wants_parts(self) -> bool:
        """Whether contents must be lists of {"type": "text"}, as for models that see pictures."""
        return _wants_parts(self.text, json.dumps(self.special_tokens))

    def render(
        self,
        conversations: Sequence[Sequence[Message]],
        thinking: bool,
        generation_prompt: bool,
        where: str,
        keep: bool = False,
    ) -> list[str]:
        """Args:
            keep: write thoughts where the template would drop them, if it has a switch for that.

        Raises:
            DataError: the template refuses a conversation.
        """
        if self.wants_parts:
            conversations = [in_parts(c) for c in conversations]
        request = {**self.special_tokens, "conversations": conversations, "chat_template": self.text,
                   "add_generation_prompt": generation_prompt, "enable_thinking": thinking, "thinking": thinking,
                   "open_thinking": thinking, **dict.fromkeys(KEEPS if keep else (), True)}  # fmt: skip
        try:
            return render(request)
        except DataError as e:
            raise self.refusal(where, str(e)) from None

    def refusal(self, where: str, why: str) -> DataError:
        return DataError(f"{where}: {why} (template: {self.name})")


def in_parts(messages: Sequence[Message]) -> list[Message]:
    return [m | {"content": [{"type": "text", "text": m["content"]}]} for m in messages]


@functools.cache
def _wants_parts(text: str, special_tokens: str) -> bool:
    question = [{"role": "user", "content": "What is it?"}]
    for parts in (False, True):
        request = {**json.loads(special_tokens), "chat_template": text, "add_generation_prompt": True,
                   "conversations": [in_parts(question) if parts else question]}  # fmt: skip
        with suppress(DataError):
            if question[0]["content"] in render(request)[0]:
                return parts
    return False


def turns_of(
    messages: Sequence[Message], template: ChatTemplate, end: TurnEnd, thinking: bool, where: str
) -> list[Turn]:
    """The turns of a conversation that are trained on, each as it would be prompted.

    Args:
        thinking: whether turns with a thought answer the prompt that asks for one; those without never do.

    Raises:
        DataError: what the template writes is not what is to be trained on; names the row and the template.
    """
    said = [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight", 1)]
    return [_turn(messages[: i + 1], template, end, thinking, where) for i in said]


def _turn(messages: Sequence[Message], template: ChatTemplate, end: TurnEnd, thinking: bool, where: str) -> Turn:
    """The last message's turn, in the first layout of thoughts that passes; one that the template leaves thoughts out
    of is the last choice."""
    thoughts = any(m["role"] == "assistant" and m["content"].startswith(THINK) for m in messages)
    keeps = (False, True) if any(switch in template.text for switch in KEEPS) else (False,)
    faults: list[DataError] = []
    left_out: Turn | None = None
    for keep, layout in itertools.product(keeps, template.layouts) if thoughts else ((False, FOLDED),):
        if left_out and (keep or layout == OPENED):
            break
        try:
            turn, written = _laid_out(messages, layout, keep, template, end, thinking, where)
        except DataError as e:
            faults.append(e)
            continue
        if written:
            return turn
        left_out = left_out or turn
    if left_out:
        return left_out
    raise faults[0]


def _laid_out(
    messages: Sequence[Message],
    layout: str,
    keep: bool,
    template: ChatTemplate,
    end: TurnEnd,
    thinking: bool,
    where: str,
) -> tuple[Turn, bool]:
    """The turn, and whether the template writes its thought."""
    if len(messages) == 1:
        raise DataError(f"{where}: got an assistant's turn first, expected something that it answers")
    content = messages[-1]["content"]
    thought = split_thought(content)[0].strip()
    thinking, marks = thinking and bool(thought), _Marks()
    plain = [_given(m, layout, lambda _, text: text) for m in messages]
    marked = [*(_given(m, layout, marks.put_earlier) for m in messages[:-1]), _given(messages[-1], layout, marks.put)]
    [prompt] = template.render([plain[:-1]], thinking, True, where)
    whole, again = template.render([plain, marked], thinking, False, where, keep)
    try:
        if lost := next((m for m in messages if m["role"] == "system" and m["content"].strip() not in whole), None):
            raise ValueError(f"leaves out {_name(lost)}")
        spans = marks.spans(whole, again)
        answer = spans[ANSWER]
        written = not thought or spans[THE_THOUGHT].stop > 0
        if written:
            thinks = functools.partial(template.render, [plain[:-1]], True, True, where)
            reply = _joined(prompt, whole, spans[THE_THOUGHT], answer, thinks)
        else:
            reply = _thought_left_out(prompt, whole[: answer.start], content) + whole[answer.start : answer.stop]
        return Turn(where, prompt, reply + _ending(whole[answer.stop :], end)), written
    except ValueError as e:
        raise template.refusal(where, f"the chat template {e}") from None


def _given(message: Message, layout: str, mark: Callable[[str, str], str]) -> Message:
    """The message as the template gets it."""
    given = {k: v for k, v in message.items() if k != "weight"}
    role, content = message["role"], message["content"]
    if role == "system":  # templates look for words in it, which a mark could split
        return given
    if role != "assistant":
        return given | {"content": mark(_name(message), content)}
    thought, answer = split_thought(content)
    if not content.startswith(THINK):
        return given | {"content": mark(ANSWER, answer)}
    thought, answer = mark(THE_THOUGHT, thought), mark(ANSWER, answer)
    if layout in (FOLDED, OPENED):
        return given | {"content": (THINK if layout == FOLDED else "") + thought + THOUGHT + answer}
    return given | {"content": answer.strip(), layout: thought.strip()}


def _name(message: Message) -> str:
    return f"the content of role {message['role']!r}"


class _Marks:
    """Texts that the rendered conversation must contain once, each with a mark inside."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str, int]] = []  # name, text without space around it, place of the mark in it

    def put_earlier(self, name: str, text: str) -> str:
        """A text before the last turn: of what the assistant said there, only the answers must remain."""
        return text if name == THE_THOUGHT else self.put("an earlier answer" if name == ANSWER else name, text)

    def put(self, name: str, text: str) -> str:
        """The text with a mark in it."""
        core = text.strip()
        if not core:
            return text
        half = len(core) // 2
        at = core.find(" ", half)  # between two words, since templates look for words
        at = at if at > 0 else core.rfind(" ", 0, half)
        at = at if at > 0 else half
        self.texts.append((name, core, at))
        before = text.index(core) + at
        return f"{text[:before]}\ue000{len(self.texts) - 1}\ue001{text[before:]}"

    def spans(self, whole: str, marked: str) -> dict[str, slice]:
        """Where in the rendered text each stands, by name; slice(0) for a thought that is left out.

        Raises:
            ValueError: another text is left out, or one is changed or written twice.
        """
        pieces = MARK.split(marked)  # text, number, text, number, ... text
        if "".join(pieces[::2]) != whole:
            raise ValueError("depends on words that occur in the conversation, expected one that only writes them")
        places: dict[int, list[int]] = {}
        position = 0
        for text, number in zip(pieces[::2], pieces[1::2], strict=False):
            position += len(text)
            places.setdefault(int(number), []).append(position)
        spans = {THE_THOUGHT: slice(0)}
        for k, (name, core, at) in enumerate(self.texts):
            found = places.get(k, [])
            if not found and name == THE_THOUGHT:
                continue
            if len(found) != 1:
                raise ValueError(f"writes {name} {len(found)} times" if found else f"leaves out {name}")
            start = found[0] - at
            if whole[max(start, 0) : start + len(core)] != core:
                raise ValueError(f"changes {name}")
            spans[name] = slice(start, start + len(core))
        return spans


def _joined(prompt: str, whole: str, thought: slice, answer: slice, thinks: Callable[[], list[str]]) -> str:
    """What is said after the prompt, up to the end of the answer: whole, which goes on from prompt but for the tags
    around a thought. A prompt that opens a thought where the turn has none is answered with an empty one.

    Args:
        thinks: renders the prompt that asks for a thought.

    Raises:
        ValueError: whole does not go on from prompt, or the thought is not opened and closed once.
    """
    begin = thought.start if thought.stop else answer.start
    if thought.stop > answer.start:
        raise ValueError("writes the answer before the thought")
    if whole.startswith(prompt) and len(prompt) <= begin:
        lead = whole[len(prompt) : begin]
    else:
        same = min(_same(prompt, whole), begin)
        tail, lead = prompt[same:], whole[same:begin]
        if not thought.stop and not lead.strip() and tail.strip() == THINK:
            lead = EMPTY.removeprefix(tail.rpartition(THINK)[2])
        elif _bare(tail) == _bare(lead) or (not thought.stop and _says_not_to_think(tail, lead, thinks)):
            lead = ""
        elif after := re.match(r"\s*" + r"\s*".join(map(re.escape, _bare(tail))), lead):  # but for space
            lead = lead[after.end() :].lstrip()
        else:
            raise ValueError("writes a turn otherwise than the prompt before it, expected one that goes on from it")
    _check_tags(prompt, lead, whole[thought.stop : answer.start] if thought.stop else None)
    return lead + whole[begin : answer.stop]


def _says_not_to_think(tail: str, lead: str, thinks: Callable[[], list[str]]) -> bool:
    """Whether a prompt ends in an empty thought, which the turn itself does not have, or only closes."""
    if _bare(tail) == THINK + THOUGHT:
        return _bare(lead) in ("", THOUGHT)
    return not lead.strip() and tail not in thinks()[0]


def _thought_left_out(prompt: str, whole: str, content: str) -> str:
    """What is said before the answer, as the row has it, where the template leaves out thoughts, as most do for earlier
    turns. `whole` ends where the answer begins.

    Raises:
        ValueError: the template says something else there, such as an empty thought, or does not close one.
    """
    same = _same(prompt, whole)
    tail, lead = prompt[same:], whole[same:]
    opened = tail.strip() == THINK and lead.strip() in ("", THOUGHT)
    if not opened and (_bare(tail) != _bare(lead) or prompt.rstrip().endswith(THINK)):
        raise ValueError("leaves out the thought")
    thought, answer = split_thought(content)
    before = thought.removeprefix(prompt.rpartition(THINK)[2]) if opened else THINK + thought
    return before + THOUGHT + answer[: len(answer) - len(answer.lstrip())]


def _check_tags(prompt: str, lead: str, between: str | None) -> None:
    """Raises ValueError unless thoughts are opened and closed once.

    Args:
        lead: what is said before the thought or, without one, before the answer.
        between: what is said between the two; None: there is no thought.
    """
    opened = prompt.rstrip().endswith(THINK)
    opens, closes = opened + lead.count(THINK), lead.count(THOUGHT)
    if between is None:
        if opens > closes:
            raise ValueError("opens a thought in the prompt, and the turn has none")
        if opens > 1 or opens != closes:
            raise ValueError("writes more than one thought")
        return
    if not between.strip():
        raise ValueError("writes thought and answer as one text")
    if closes or (opens, between.count(THINK), between.count(THOUGHT)) not in ((1, 0, 1), (0, 0, 0)):
        raise ValueError("opens or closes the thought twice, or not at all")


def _ending(rest: str, end: TurnEnd) -> str:
    """What is said after the answer, of what whole has behind it.

    Raises:
        ValueError: nothing that ends generation.
    """
    found = min(((rest.index(t), -len(t), t) for t in end.texts if t in rest), default=None)
    if found:
        if end.configured and found[2] != end.stop:
            raise ValueError(f"ends the assistant's turn with {found[2]!r}, expected prompting.stop={end.stop!r}")
        return rest[: found[0]] + found[2]
    if end.configured or (end.stop and not rest.strip()):
        return rest.rstrip() + end.stop
    if rest.strip():
        raise ValueError(f"ends the assistant's turn with {rest.strip()!r}, expected {' or '.join(end.texts)}, which "
                         f"end generation; set prompting.stop, or eos_token_id in generation_config.json")  # fmt: skip
    raise ValueError(f"does not end the assistant's turn, expected {' or '.join(end.texts)}; set prompting.stop to "
                     f"the one that does")  # fmt: skip


def _same(a: str, b: str) -> int:
    """Length of the beginning that both texts have, which does not end within a tag."""
    n = min(len(a), len(b))
    n = next((i for i in range(n) if a[i] != b[i]), n)
    tag = a.rfind("<", 0, n)
    return tag if tag > a.rfind(">", 0, n) else n


def _bare(text: str) -> str:
    return "".join(text.split())
