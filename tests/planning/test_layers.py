from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import autoseg.planning


def test_planning_imports_neither_torch_nor_image_readers():
    names = sorted(f"autoseg.planning.{path.stem}" for path in Path(autoseg.planning.__path__[0]).glob("[a-z]*.py"))
    heavy = "('torch', 'SimpleITK', 'nibabel', 'pandas', 'sklearn')"
    code = f"import sys, {', '.join(names)}; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("[]\n", "")
