"""The house rules that a machine can check: imports point down, tasks stay out of the stages, forbidden constructs, sizes.

Every rule is a function from a module's syntax tree to offences, so that each rule is itself tested on a bad example.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "autoseg"

LAYERS = {
    "core": 0,
    "io": 1, "ops": 1,
    "planning": 2, "augment": 2, "nn": 2, "losses": 2, "metrics": 2, "inference": 2, "training": 2, "reporting": 2,
    "tasks": 3, "stages": 3,
    "pipeline": 4, "workspace": 4, "cli": 5,  # the top floor of the house; cli stands on pipeline
}
APART = {1, 3}  # layers whose packages do not import each other
TASK_FREE = ("stages", "training", "inference")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 60
HEAVY = {"torch", "SimpleITK", "nibabel", "pandas"}
# Modules that must be quick to import; each also without what it imports in turn.
LIGHT = ("core", "planning", "io.specs", "io.atomic", "io.values", "cli")
IMAGE_LIBRARIES = {"SimpleITK", "nibabel", "tifffile"}
# SimpleITK reads files and registers images. Who uses its algorithms gets images and fields of it from `io.itk`, where axes turn.
ALGORITHMS = {"inference.classical": {"SimpleITK"}}
OUTSIDE_WORLD = {
    "os.environ", "os.getenv", "os.cpu_count", "time.time", "time.monotonic", "time.perf_counter", "datetime.now",
    "datetime.today", "datetime.utcnow", "date.today", "torch.cuda.is_available", "torch.cuda.device_count",
}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@dataclass(frozen=True)
class Module:
    """One source file; `name` is relative to the package (`io.store`)."""

    name: str
    text: str
    is_package: bool = False

    @property
    def tree(self) -> ast.Module:
        return parse(self.text)

    @property
    def part(self) -> str:
        return self.name.split(".")[0]


@cache
def parse(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def modules() -> tuple[Module, ...]:
    found = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = list(path.relative_to(ROOT / PACKAGE).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return tuple(found)


def task_names() -> set[str]:
    return {module.name.split(".")[1] for module in modules() if module.name.startswith("tasks.")}


def imports(module: Module, *, only_at_import: bool = False) -> Iterator[tuple[str, int]]:
    """Full dotted names that a module imports, with lines; `from a import b` gives a.b.

    Args:
        only_at_import: without imports inside functions and under TYPE_CHECKING.
    """
    for node in statements(module.tree) if only_at_import else ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                keep = module.name.split(".")[: None if module.is_package and node.level == 1 else
                                              (1 if module.is_package else 0) - node.level]
                base = ".".join([PACKAGE, *(part for part in keep if part), *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Everything that runs when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (inner for statement in child.orelse for inner in (statement, *statements(statement)))
            continue
        yield child
        yield from statements(child)


def own_imports(module: Module) -> Iterator[tuple[str, int]]:
    """Imports of this package, relative to it."""
    for name, line in imports(module):
        if name.split(".")[0] == PACKAGE and "." in name:
            yield name.split(".", 1)[1], line


def upward_imports(module: Module) -> list[str]:
    offences = []
    for name, line in own_imports(module):
        part = name.split(".")[0]
        if part not in LAYERS or module.part not in LAYERS or part == module.part:
            continue
        if LAYERS[part] > LAYERS[module.part]:
            offences.append(f"{module.name}:{line} imports {name}, which lies above it")
        elif LAYERS[part] == LAYERS[module.part] and LAYERS[part] in APART:
            offences.append(f"{module.name}:{line} imports {name}, a sibling on a layer whose packages stand apart")
    return offences


def imports_of_other_tasks(module: Module) -> list[str]:
    own = module.name.split(".")[1] if module.name.startswith("tasks.") else None
    if own is None:
        return []
    return [f"{module.name}:{line} imports {name}, another task" for name, line in own_imports(module)
            if name.startswith("tasks.") and name.split(".")[1] != own]


def task_strings(module: Module, names: set[str]) -> list[str]:
    """String constants that are a task's name, or a dotted path to it; prose in docstrings may use the word."""
    if module.part not in TASK_FREE:
        return []
    found = [node for node in ast.walk(module.tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [f"{module.name}:{node.lineno} holds the task name {node.value!r}" for node in found
            if any(node.value == name or node.value.startswith(f"{PACKAGE}.tasks.{name}") for name in names)]


def forbidden_constructs(module: Module) -> list[str]:
    offences = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            offences.append((node, "star import"))
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            offences.append((node, "bare except"))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and module.part != "cli":
            offences += [(node, "print outside the command line")] if node.func.id == "print" else []
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load" and not reads_weights_only(node):
            offences.append((node, "torch.load without weights_only=True"))
    offences += [(line, "import of a library that unpickles") for name, line in imports(module)
                 if name.split(".")[0] in UNPICKLERS or name == "torch.load"]
    return [f"{module.name}:{getattr(node, 'lineno', node)} {what}" for node, what in offences]


def reads_weights_only(call: ast.Call) -> bool:
    return any(keyword.arg == "weights_only" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
               for keyword in call.keywords)


def looks_outside(module: Module) -> list[str]:
    """Reads of the clock, the environment and the device."""
    if module.part == "cli" or module.name == "training.device":
        return []
    offences = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if any(name == forbidden or name.endswith("." + forbidden) for forbidden in OUTSIDE_WORLD):
                offences.append(f"{module.name}:{node.lineno} reads {name}")
    offences += [f"{module.name}:{line} imports {name}" for name, line in imports(module) if name in OUTSIDE_WORLD]
    return offences


def image_libraries_outside_io(module: Module) -> list[str]:
    if module.part == "io":
        return []
    return [f"{module.name}:{line} imports {name}" for name, line in imports(module)
            if name.split(".")[0] in IMAGE_LIBRARIES - ALGORITHMS.get(module.name, set())]


def oversize(module: Module) -> list[str]:
    offences = []
    lines = len(module.text.splitlines())
    if lines > MAX_FILE_LINES:
        offences.append(f"{module.name} has {lines} lines, at most {MAX_FILE_LINES}")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                offences.append(f"{module.name}:{node.lineno} {node.name} has {length} lines, at most {MAX_FUNCTION_LINES}")
    return offences


def imported_modules(module: Module, known: dict[str, Module]) -> set[str]:
    """Own modules that are imported when this one is, the packages they lie in included."""
    found = set()
    for name, _ in imports(module, only_at_import=True):
        if name.split(".")[0] != PACKAGE:
            continue
        parts = name.split(".")[1:]
        found |= {".".join(parts[:length]) for length in range(1, len(parts) + 1)} & set(known)
    return found - {module.name}


def heavy_imports(start: str, known: dict[str, Module]) -> list[str]:
    """Heavy libraries that importing `start` brings in, each with the module that names it."""
    waiting, seen, offences = [start], set(), []
    while waiting:
        module = known[waiting.pop()]
        if module.name in seen:
            continue
        seen.add(module.name)
        offences += [f"importing {start} imports {name} in {module.name}:{line}"
                     for name, line in imports(module, only_at_import=True) if name.split(".")[0] in HEAVY]
        waiting += imported_modules(module, known)
    return offences


def cycles(known: dict[str, Module]) -> list[str]:
    """Modules that import themselves through others, at import time; a package and its own modules count as one way."""
    edges = {name: {other for other in imported_modules(module, known) if not name.startswith(other + ".")}
             for name, module in known.items()}
    offences, done = [], set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            offences.append(" -> ".join((*path[path.index(name):], name)))
        elif name not in done:
            for other in sorted(edges[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())
    return offences


def by_name() -> dict[str, Module]:
    return {module.name: module for module in modules() if module.name}


def all_offences(rule) -> list[str]:
    return [offence for module in modules() for offence in rule(module)]


def test_every_package_has_its_place_in_a_layer():
    assert sorted({module.part for module in modules() if module.part} - set(LAYERS)) == []


def test_imports_point_down_and_siblings_stand_apart():
    assert all_offences(upward_imports) == []


def test_a_task_never_imports_another_task():
    assert all_offences(imports_of_other_tasks) == []


def test_no_task_name_stands_in_stages_training_or_inference():
    assert all_offences(lambda module: task_strings(module, task_names())) == []


def test_no_import_cycles():
    assert cycles(by_name()) == []


def test_no_star_import_bare_except_print_or_unpickling():
    assert all_offences(forbidden_constructs) == []


def test_clock_environment_and_device_are_read_in_the_command_line_and_training_device_only():
    assert all_offences(looks_outside) == []


def test_image_libraries_are_imported_in_io_only():
    assert all_offences(image_libraries_outside_io) == []


def test_files_and_functions_are_short():
    assert all_offences(oversize) == []


@pytest.mark.parametrize("light", LIGHT)
def test_light_modules_never_import_heavy_libraries(light: str):
    known = by_name()
    names = [name for name in known if name == light or name.startswith(light + ".")]
    assert sorted({offence for name in names for offence in heavy_imports(name, known)}) == []


def test_there_is_a_task_to_keep_out():
    assert "segmentation" in task_names()


@pytest.mark.parametrize(("name", "source"), [
    ("core.case", "from autoseg.io.store import Store"),
    ("core.case", "def f():\n    import autoseg.nn.build"),
    ("io.store", "from autoseg.ops.crop import crop"),
    ("io.store", "from autoseg.ops import crop"),
    ("ops.crop", "from ..io import store"),
    ("stages.train", "from autoseg.tasks import load_task"),
    ("tasks.segmentation.plan", "from autoseg.stages import train"),
    ("pipeline", "from autoseg.cli import main"),
])
def test_rule_sees_an_import_that_does_not_point_down(name: str, source: str):
    assert len(upward_imports(Module(name, source))) == 1


@pytest.mark.parametrize(("name", "source"), [
    ("stages.train", "from autoseg.training.loop import run\nfrom autoseg.stages.done import x\nimport numpy"),
    ("cli.app", "from autoseg.pipeline import fit\nfrom autoseg import pipeline"),
    ("losses.dice", "from autoseg.core.plan import Loss"),
    ("pipeline", "from autoseg.tasks import load_task"),
])
def test_rule_lets_downward_imports_pass(name: str, source: str):
    assert upward_imports(Module(name, source)) == []


def test_rule_sees_imports_of_another_task():
    source = "from autoseg.tasks.classification.plan import make_plan\nfrom autoseg.tasks.segmentation.spec import Options"
    assert len(imports_of_other_tasks(Module("tasks.segmentation.plan", source))) == 1


@pytest.mark.parametrize("source", [
    "task == 'segmentation'", "load('autoseg.tasks.segmentation')", "NAMES = {'segmentation': 1}",
])
def test_rule_sees_a_task_name_in_a_stage_but_not_in_prose(source: str):
    assert len(task_strings(Module("stages.train", source), {"segmentation"})) == 1
    assert task_strings(Module("stages.train", '"""For segmentation and others."""'), {"segmentation"}) == []
    assert task_strings(Module("pipeline", source), {"segmentation"}) == []


@pytest.mark.parametrize("source", [
    "from numpy import *", "try:\n    f()\nexcept:\n    pass", "print(1)", "import pickle", "from pickle import load",
    "torch.load(path)", "torch.load(path, weights_only=False)", "from torch import load",
])
def test_rule_sees_forbidden_constructs(source: str):
    assert len(forbidden_constructs(Module("stages.train", source))) == 1


def test_rule_lets_print_in_the_command_line_and_weights_only_pass():
    assert forbidden_constructs(Module("cli.screen", "print(1)")) == []
    assert forbidden_constructs(Module("training.checkpoint", "torch.load(path, weights_only=True)")) == []


@pytest.mark.parametrize("source", [
    "import os\nos.environ['A']", "import time\ntime.time()", "from time import perf_counter", "from os import environ",
    "datetime.datetime.now()", "torch.cuda.is_available()",
])
def test_rule_sees_reads_of_clock_environment_and_device(source: str):
    assert len(looks_outside(Module("stages.train", source))) == 1
    assert looks_outside(Module("training.device", source)) == looks_outside(Module("cli.run", source)) == []


def test_rule_sees_image_libraries_outside_io():
    source = "import nibabel as nib\nfrom SimpleITK import ReadImage"
    assert len(image_libraries_outside_io(Module("ops.crop", source))) == 2
    assert image_libraries_outside_io(Module("io.images.nifti", source)) == []
    assert len(image_libraries_outside_io(Module("inference.classical", source))) == 1  # nibabel


def test_who_uses_the_algorithms_of_an_image_library_leaves_axes_and_files_to_io():
    turning = ("GetArrayFromImage", "GetArrayViewFromImage", "GetImageFromArray", "ReadImage", "WriteImage", "ReadTransform",
               "WriteTransform")
    for name in ALGORITHMS:
        assert [word for word in turning if word in by_name()[name].text] == []


def test_rule_sees_long_files_and_functions():
    function = "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES
    assert len(oversize(Module("core.case", function))) == 1
    assert len(oversize(Module("core.case", "x = 1\n" * (MAX_FILE_LINES + 1)))) == 1
    assert oversize(Module("core.case", "x = 1\n" * MAX_FILE_LINES)) == []


def test_rule_sees_heavy_imports_through_other_modules_but_not_inside_functions():
    known = {name: Module(name, source) for name, source in {
        "planning.plan": "from autoseg.planning.memory import peak",
        "planning.memory": "import torch",
        "planning.quick": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    import torch",
    }.items()}
    assert heavy_imports("planning.plan", known) == ["importing planning.plan imports torch in planning.memory:1"]
    assert heavy_imports("planning.quick", known) == []


def test_rule_sees_cycles():
    known = {name: Module(name, source) for name, source in {
        "nn.a": "from autoseg.nn.b import x", "nn.b": "from autoseg.nn import c", "nn.c": "from autoseg.nn.a import y",
        "nn.d": "from autoseg.nn.a import x",
    }.items()}
    assert cycles(known) == ["nn.a -> nn.b -> nn.c -> nn.a"]
