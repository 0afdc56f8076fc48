"""`python -m autoseg.cli` is `autoseg`."""

from autoseg.cli.app import main

main()
