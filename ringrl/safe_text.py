"""Text from outside, made safe to show. Screens, error lines and pages pass every text through `printable`.

Responses, rows, file names, servers' answers and logs may hold what steers a terminal, turns the direction of reading,
or is not seen at all; URLs may hold credentials. Files of data keep their texts as they are.
"""

from __future__ import annotations

import re

# Never shown as they are: controls but tab and line feed, the two separators that break lines, changes of direction,
# characters without a width, lone surrogates.
_NEVER = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\u3164\ufeff\uffa0\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
# Shown where a script or an emoji needs them: joiners after letters from Arabic to Indic and Mongolian, or after an
# emoji; variation selectors after Chinese characters, symbols and keycaps. Anywhere else they only hide something.
HIDDEN = re.compile(
    rf"[{_NEVER}]"
    r"|[\u180e\u200c\u200d](?<![\u0600-\u1cff\u2190-\u2bff\ufe0f\U0001f000-\U0001faff].)"
    r"|[\u180b-\u180d\u180f\ufe00-\ufe0f]"
    r"(?<![#*0-9\xa9\xae\u1820-\u18aa\u2000-\u2bff\u3000-\u9fff\U0001f000-\U0001faff].)"
    r"|[\U000e0100-\U000e01ef](?<![\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af].)"
)
_CREDENTIAL = re.compile(
    r"(?P<before>://|\bhttps?:/)[^/?#\s\"'<>]*(?=@)"  # user and password; a URL taken for a path has one slash
    r"|(?P<name>[?&;][\w-]{0,30}(?i:key|token|secret|passw(?:or)?d|sig|signature|credential)=)[^&;\s#\"'<>]+"
    r"|\b(?:hf_[A-Za-z0-9]{12,}|sk-(?=[\w-]{0,60}\d)[\w-]{12,})"  # of Hugging Face, and of OpenAI and its likes
)
MASK = "***"


def printable(text: str, lines: bool = False) -> str:
    """`text` as it may reach a screen or a page: what is hidden as ⟨U+001B⟩, credentials masked, letters of all scripts
    kept. Line breaks stay only with `lines`."""
    if lines:
        text = text.replace("\r\n", "\n")
    text = HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", masked(text))
    return text if lines else text.replace("\n", "⟨U+000A⟩")


def masked(text: str) -> str:
    """`text` without the credentials in its URLs, and without tokens known by their form."""
    return _CREDENTIAL.sub(lambda found: (found["before"] or found["name"] or "") + MASK, text)
