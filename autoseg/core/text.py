"""Text that came from files, made fit for a screen, a log and a table."""

from __future__ import annotations

import unicodedata

# Unicode general categories: control (Cc), format (Cf: turns the direction of a line, hides text), surrogate (Cs: half of a
# character, or a byte of a file name that is not UTF-8), line and paragraph separators (Zl, Zp).
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Joiners that Arabic, Persian and Indic words need (Unicode Standard, 23.2).
_NEEDED = "\u200c\u200d"


def has_control_characters(text: str, *, allowed: str = "") -> bool:
    """True when `text` holds characters that move the cursor, end a line, colour a terminal or cannot be encoded."""
    if text.isascii() and text.isprintable():
        return False
    return any(_is_unsafe(character) and character not in allowed for character in text)


def printable(text: str) -> str:
    """`text` with such characters written out (`\\n`, `\\x1b`, `\\udcff`)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character.encode("unicode_escape").decode("ascii") if _is_unsafe(character) else character
                   for character in text)


def printable_lines(text: str) -> str:
    """Like `printable`, of a message of several lines: ends of lines stay."""
    return "\n".join(map(printable, text.split("\n")))


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE and character not in _NEEDED
