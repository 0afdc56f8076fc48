"""docs/problems.md and the codes in the source are the same set."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CODE = re.compile(r"[EW]_[A-Z][A-Z0-9_]*")


def codes_of(text: str) -> set[str]:
    """String constants in Python source that are a code."""
    return {node.value for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value)}


def rows() -> list[list[str]]:
    """Cells of the page's rows that begin with a code."""
    lines = (ROOT / "docs" / "problems.md").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| `[EW]_", line)]


def test_every_code_in_the_source_has_one_row_and_no_row_is_stale():
    used = {code for path in (ROOT / "autoseg").rglob("*.py") for code in codes_of(path.read_text(encoding="utf-8"))}
    counted = Counter(row[0].strip("`") for row in rows())
    assert set(counted) == used
    assert {code for code, count in counted.items() if count > 1} == set()


def test_every_row_says_what_it_means_and_what_to_do():
    assert [row for row in rows() if len(row) != 3 or min(len(row[1]), len(row[2])) < 10] == []


def test_codes_are_found_wherever_they_stand_in_the_source():
    assert codes_of('raise E("x", code="E_ONE")\nclass A:\n  default_code = "E_TWO"\nNAME = ("W_3D",)\n"in E_WORDS only"') == {
        "E_ONE", "E_TWO"}  # W_3D begins with a digit and is no code


def test_the_readme_leads_to_the_page():
    assert "docs/problems.md" in (ROOT / "README.md").read_text(encoding="utf-8")
