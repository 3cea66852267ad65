"""Templates of strangers: what they cost is limited, and what they may reach is a conversation."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ringrl.config.sections import Prompting
from ringrl.data import render
from ringrl.data.chat import load_tokenizer, make_prompts, make_sequences, turn_end
from ringrl.data.tiny import build_model
from ringrl.domains import Domains
from ringrl.errors import DataError

ROW = {"id": "sum-1", "domain": "math", "problem": "1 + 1", "answer": "2"}
SMALL_CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}{{ eos_token }}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '' if enable_thinking else '<think></think>' }}{% endif %}"
)
PLAIN = Prompting(suffix={})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("render") / "model"
    build_model(out, ["1 + 1 = 2"] * 9, 0, vocab_size=300, layers=1, hidden=32, experts=2, moe_intermediate=32)
    return out


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second, in a process of its own, so that tests end."""
    monkeypatch.setattr(render, "RENDER_S", 1)


def prompt_with(template: str, model: Path) -> Any:
    tokenizer = load_tokenizer(str(model), PLAIN)
    tokenizer.chat_template = template
    return tokenizer, make_prompts([ROW], tokenizer, PLAIN, 4096, Domains())[0]


def test_a_strange_template_gives_what_transformers_would(model: Path) -> None:
    tokenizer, prompt = prompt_with(SMALL_CHATML, model)
    messages = [{"role": "user", "content": "1 + 1"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=True)["input_ids"]
    assert list(prompt.token_ids) == ids
    turn = [*messages, {"role": "assistant", "content": "<think>1 more</think>naïve 2"}]
    [[sequence]] = make_sequences([("rows:1", turn)], tokenizer, PLAIN, turn_end(str(model), tokenizer, PLAIN))
    assert tokenizer.decode(sequence.token_ids) + "\n" == tokenizer.apply_chat_template(turn, tokenize=False)


ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "one operation": "{% set n = messages | length %}{{ (6 + n) ** (3 ** (19 + n)) }}",
    "constants, before anything is rendered": "{{ 7 ** (3 ** 20) }}",
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_template_that_never_ends_is_one_line_and_the_next_one_is_rendered(
    what: str, model: Path, limit: None
) -> None:
    with pytest.raises(DataError, match=r"^sum-1: the chat template did not end within 1 s \(template: .*\)$"):
        prompt_with(ENDLESS[what], model)
    assert len(prompt_with(SMALL_CHATML, model)[1].token_ids)


def test_a_template_without_limit_of_size_is_one_line(model: Path) -> None:
    for template in ("{{ 'a' * 9999999999 }}", "{{ 'a' * 99999999 }}"):
        with pytest.raises(DataError, match=r"^sum-1: the chat template (needs more than 4 GiB|made 99999999 char)"):
            prompt_with(template, model)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages.nothing.at_all }}",
        "{{ 1 + 'a' }}",
        "{{ raise_exception('not\nthis one') }}",
        "{{ messages[0].tool_calls + 1 }}",
        "{% for m in messages %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ lipsum.__globals__['os'].mkdir('x') }}",
        "{{ cycler.__init__.__globals__.os.mkdir('x') }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ (''|attr('__class__')).__mro__ }}",
        "{{ messages.append(1) }}",
    ],
)
def test_whatever_a_template_raises_is_one_line(template: str, model: Path) -> None:
    with pytest.raises(DataError, match=r"^sum-1: the chat template refuses the conversation: [^\n]*$"):
        prompt_with(template, model)


def test_the_process_that_renders_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "do not tell")
    child = render._Child(7)
    try:
        assert child.ask({"chat_template": "a", "conversations": [[]]}) == {"texts": ["a"]}
        assert child.process
        environment = Path(f"/proc/{child.process.pid}/environ").read_text()
        assert "do not tell" not in environment
        assert os.environ["PATH"] in environment
    finally:
        child._end()


def test_code_beside_a_tokenizer_is_not_run(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "code.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\nT = None\n")
    config = json.loads((model / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["code.T", "code.T"]}, "tokenizer_class": "T"}
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / "model" / name).unlink()
    with pytest.raises(DataError, match=r"the tokenizer cannot be loaded: [^\n]*$"):
        load_tokenizer(str(tmp_path / "model"), PLAIN)
    assert not (tmp_path / "ran").exists()
