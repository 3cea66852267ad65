"""Texts from outside: what steers, hides or reveals is made visible or masked, and letters of all scripts stay."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from ringrl.safe_text import masked, printable

# format characters with a shape of their own: signs and marks of Arabic, Syriac and Kaithi numbers
SHAPED = {*map(chr, range(0x600, 0x606)), *"\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"}


def test_every_control_and_format_character_is_shown_by_its_number():
    categories = ("Cc", "Cf", "Cs", "Zl", "Zp")
    hidden = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) in categories]
    left = {c for c in hidden if printable(f"a{c}b") != f"a⟨U+{ord(c):04X}⟩b"}
    assert left == SHAPED | {"\t"}


@pytest.mark.parametrize("hidden", ["\u034f", "\u115f", "\u3164", "\uffa0", "\ufe00", "\ufe0f", "\U000e0101", "\u180b"])
def test_what_has_no_width_is_shown_where_it_only_hides(hidden: str):
    assert printable(f"a{hidden}b") == f"a⟨U+{ord(hidden):04X}⟩b"
    assert printable(hidden).startswith("⟨")


@pytest.mark.parametrize("text", [
    "Größe Φ ≤ 1, naïve — “quoted”", "漢字 かな 한국어", "עברית العربية", "می\u200cخواهم", "क्\u200dष", "ᠮᠣᠩᠭᠣᠯ",
    "👨\u200d👩\u200d👧 1\ufe0f⃣ ❤\ufe0f 👍🏽", "葛\U000e0100", "ไทย ខ្មែរ", "a\tb", "\ufffd", "[link=x]:smile:",
])  # fmt: skip
def test_letters_of_all_scripts_and_emoji_stay(text: str):
    assert printable(text) == text


def test_lines_break_only_where_they_may():
    assert printable("a\nb\r\nc") == "a⟨U+000A⟩b⟨U+000D⟩⟨U+000A⟩c"
    assert printable("a\nb\r\nc\rd", lines=True) == "a\nb\nc⟨U+000D⟩d"
    once = printable("\x1b[2J\n", lines=True)
    assert printable(once, lines=True) == once


@pytest.mark.parametrize(("text", "said"), [
    ("at https://user:pass@host:80/v1?", "at https://***@host:80/v1?"),
    ("http://pass@host", "http://***@host"),
    ("https:/user:pass@host", "https:/***@host"),
    ("http://user:a@b@host", "http://***@host"),
    ("http://host/v1?x=1&api_key=abc&y=2", "http://host/v1?x=1&api_key=***&y=2"),
    ("http://host?Access-Token=abc#f", "http://host?Access-Token=***#f"),
    ("no hf_AbCdEfGhIjKlMnOp here", "no *** here"),
    ("no sk-proj-abcDEF123456789 here", "no *** here"),
    ("mail a@b.de, http://host/~a@b, task-sk-learn-with-words hf_model ?design=1",
     "mail a@b.de, http://host/~a@b, task-sk-learn-with-words hf_model ?design=1"),
])  # fmt: skip
def test_credentials_are_masked(text: str, said: str):
    assert masked(text) == said
    assert printable(text) == said
