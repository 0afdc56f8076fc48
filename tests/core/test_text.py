from __future__ import annotations

import pytest

from autoseg.core.text import has_control_characters, printable, printable_lines


@pytest.mark.parametrize(("text", "shown"), [
    ("liver", "liver"), ("Tête", "Tête"), ("肝", "肝"), ("a\nb", "a\\nb"), ("\x1b[31mred", "\\x1b[31mred"), ("a\x9bb", "a\\x9bb"),
    ("a\u202eb", "a\\u202eb"), ("a\u2028b", "a\\u2028b"), ("\udcff", "\\udcff"), ("a\x7f", "a\\x7f"), ("\r", "\\r"),
    ("می\u200cخواهم", "می\u200cخواهم"),  # a joiner that Persian needs
])
def test_only_what_moves_or_colours_a_terminal_is_written_out(text, shown):
    assert printable(text) == shown
    assert has_control_characters(text) == (text != shown)
    printable(text).encode("utf-8")


def test_ends_of_lines_may_be_allowed():
    assert printable_lines("a\n  b\x1b") == "a\n  b\\x1b"
    assert not has_control_characters("é\n\t", allowed="\n\t") and has_control_characters("a\n\t", allowed="\n")
