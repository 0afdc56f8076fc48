"""Every test that docs/reliability.md names exists."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", PAGE)))


@lru_cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_the_page_names_is_there(path, name):
    assert (ROOT / path).is_file()
    assert not name or name in functions(path)


def test_every_row_has_a_test_or_says_that_there_is_none():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| row |")]
    assert len(rows) > 100
    bare = [row for row in rows if "tests/" not in row.rsplit(" | ", 1)[1] and not row.endswith("| - |")]
    assert bare == []


def test_the_readme_leads_to_the_page():
    assert "docs/reliability.md" in (ROOT / "README.md").read_text(encoding="utf-8")
