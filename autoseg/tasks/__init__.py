"""Tasks: one folder each, plugged into the stages through a `Task` record."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from autoseg.core.errors import UnsafeError, UsageError, unknown_name
from autoseg.core.task import Task


def load_task(name: str, *, trusted: str | None = None) -> Task:
    """The task called `name`.

    Args:
        name: a folder of this package, or a dotted module path to a task outside it (`my_lab.perfusion`).
        trusted: the dotted path that the user typed or wrote into the own specification. A dotted path is imported
            only when it equals this one, so that a plan or a bundle from elsewhere can never name code to run.
    Raises:
        UsageError: no such task.
        UnsafeError: a dotted path that the user did not give.
    """
    if name in known_tasks():
        return _record_of(importlib.import_module(f"{__name__}.{name}"))
    if "." not in name:
        raise UsageError(unknown_name(name, known_tasks(), "task"))
    if name != trusted:
        raise UnsafeError(f"task {name!r} is code outside autoseg; a plan or a bundle may not choose code to run",
                          hint=f"if you trust it, name it yourself: --task {name}")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(f"task {name!r} cannot be imported ({error}); is its folder on PYTHONPATH?") from error
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        raise UsageError(f"module {name!r} has no TASK of type autoseg.core.task.Task, found {type(task).__name__}")
    return task


def _record_of(module: ModuleType) -> Task:
    """The module's `TASK`; or what its `compose` makes of the records of the tasks that it names in `COMPOSED_OF`.

    Tasks do not import each other: here their records are handed over.
    """
    if hasattr(module, "COMPOSED_OF"):
        return module.compose(*map(load_task, module.COMPOSED_OF))
    return module.TASK


def known_tasks() -> list[str]:
    """Names of the tasks that are part of autoseg."""
    return [module.name for module in pkgutil.iter_modules(__path__)]
