"""What an installation of autoseg brings with it."""

from __future__ import annotations

import importlib.metadata
import re
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
# Without a CPU build that fits the pinned torch, so that installing one of them installs another torch.
FORBIDDEN = {"torchvision", "torchaudio", "timm"}
EXTRAS = ("", "classification", "cpu", "dev", "demo", "explain", "sign")


def declared() -> list[Requirement]:
    """Requirements of setup.cfg, those of all extras included."""
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    blocks = [parser["options"]["install_requires"], *parser["options.extras_require"].values()]
    return [Requirement(line) for block in blocks for line in block.splitlines() if line.strip()]


def applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""})


def tree(roots: list[Requirement]) -> dict[str, str]:
    """Distribution -> who needs it, for all that the roots need on this machine, with the extras they ask for."""
    found: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(requirement, "autoseg") for requirement in roots]
    while waiting:
        requirement, parent = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.setdefault(name, parent)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        children = [Requirement(line) for line in lines]
        waiting += [(child, name) for child in children if applies(child, set(extras))]
    return found


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    return tree(declared())


def test_nothing_in_the_dependency_tree_needs_torchvision_torchaudio_or_timm(found: dict[str, str]):
    assert {name: parent for name, parent in found.items() if name in FORBIDDEN} == {}


def test_the_walk_over_the_tree_reaches_what_is_needed_through_others(found: dict[str, str]):
    assert found["sympy"] == "torch"
    assert found["connected-components-3d"] == "acvl-utils"


def test_installed_torch_is_the_pinned_one():
    installed = importlib.metadata.version("torch").split("+")[0]
    assert installed == pins()["torch"] == "2.13.0"


def test_torch_is_pinned_without_a_local_version():
    assert "+" not in pins()["torch"]


@pytest.mark.parametrize("requirement", declared(), ids=lambda requirement: requirement.name)
def test_tested_version_satisfies_the_declared_floor(requirement: Requirement):
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_every_installed_dependency_has_a_tested_version(found: dict[str, str]):
    # torch pins the exact versions of the CUDA packages that its build for GPUs brings along
    needed = {name for name in found if is_installed(name) and not name.startswith(("nvidia-", "cuda-", "triton"))}
    needed -= {"setuptools", "pip"}
    assert sorted(needed - set(pins())) == []


def test_extras_are_those_that_the_documentation_names():
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    assert set(parser["options.extras_require"]) == set(EXTRAS) - {""}


def test_third_party_imports_of_the_package_are_declared():
    import_names = importlib.metadata.packages_distributions()
    imported = {line for path in sorted((ROOT / "autoseg").rglob("*.py")) for line in top_level_imports(path)}
    distributions = {canonicalize_name(d) for name in imported for d in import_names.get(name, ())} - {"autoseg"}
    assert sorted(distributions - {canonicalize_name(r.name) for r in declared()}) == []


def is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def top_level_imports(path: Path) -> set[str]:
    found = re.findall(r"^\s*(?:from|import)\s+([A-Za-z_]\w*)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return set(found)
