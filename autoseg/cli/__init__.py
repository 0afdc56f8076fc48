"""The command line: one small function per verb; the only place that prints."""

from __future__ import annotations

from autoseg.cli.app import main

__all__ = ["main"]
