"""Mounts the verbs, runs one, and turns its end into an exit code."""

from __future__ import annotations

import errno
import signal
import sys
import tempfile
import traceback
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from autoseg.cli import verbs
from autoseg.cli.audit import log_command, remember
from autoseg.cli.run import current_screen, ending_by_signal, forget, received_signals, start
from autoseg.cli.screen import fit_for_screen

OUT_OF_RESOURCES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.ENOMEM)

# click.ClickException, the base of BadParameter and UsageError; typer brings its own copy of click since 0.26, so that
# its name depends on the version.
CLICK_EXCEPTION: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(name="autoseg", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False,
                  help="Give it a folder of medical images and it configures itself. Not a medical device.",
                  context_settings={"help_option_names": ["-h", "--help"]})

# The next command to type where an error does not know a better one.
NEXT = {
    2: "autoseg --help, or autoseg COMMAND --help",
    3: "autoseg check -d NAME -i FOLDER lists every problem of a dataset",
    5: "autoseg plan_and_preprocess -d NAME makes a plan for this version",
    6: "free some disk or memory, then repeat the command; it resumes",
    8: "copy the files again from where they were made",
    130: "repeat the command; it resumes",
    143: "repeat the command; it resumes",
}

# What follows the name of a task belongs to the task's own command, its --help too.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

for verb in verbs.VERBS:
    app.command(name=verb.__name__.rstrip("_"), context_settings=PASS_ON if verb is verbs.task else None)(verb)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"autoseg {version('autoseg')}")
        raise typer.Exit


@app.callback()
def _options(version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True,
                                                   help="Print the version and stop.")] = False) -> None:
    pass


def main() -> None:
    """Entry point of the console script; ends the process with a documented exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of one command, which the log of the folder that it wrote to holds, too; the codes are those of `_run`."""
    forget()
    remember(arguments)
    code = _run(arguments)
    log_command(current_screen(), code)
    return code


def _run(arguments: list[str]) -> int:
    """The exit code of one command: 0 all done, 2 usage, 3 input, 4 partial, 5 incompatible, 6 resource, 7 locked,
    8 refused for safety, 130 interrupted by Ctrl-C, 143 by SIGTERM or SIGHUP, 1 for a bug."""
    from autoseg.core.errors import AutosegError

    try:
        with ending_by_signal():
            code = app(arguments, prog_name="autoseg", standalone_mode=False)
        if code == 130:  # what some versions of typer make of a KeyboardInterrupt; no verb returns it
            return _tell_interrupted()
        return code if isinstance(code, int) else 0
    except typer.Exit as end:
        return end.exit_code
    except CLICK_EXCEPTION as error:
        if "--json" in arguments:  # the verb did not begin, so nobody knows yet what was asked for
            start(arguments[0], as_json=True)
        _tell(error.format_message(), "E_USAGE", "autoseg --help", error.exit_code)
        return error.exit_code
    except AutosegError as error:
        code = _interrupted() if error.exit_code == 130 else error.exit_code
        _tell(str(error), error.code, error.hint or NEXT.get(code), code)
        return code
    except (typer.Abort, KeyboardInterrupt):  # other versions turn the one into the other
        return _tell_interrupted()
    except (MemoryError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in OUT_OF_RESOURCES:
            return _tell_bug()
        _tell(f"memory or disk ran out: {error or type(error).__name__}", "E_RESOURCE", NEXT[6], 6)
        return 6
    except Exception as error:  # the last frontier: a bug must end with a code, a log and a sentence
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which need not be imported here
            _tell(f"the device is out of memory: {error}", "E_RESOURCE", "plan again with a smaller --memory", 6)
            return 6
        return _tell_bug()


def _interrupted() -> int:
    """The exit code of a command that a signal ended: 130 for Ctrl-C, 143 for SIGTERM and SIGHUP."""
    return 130 if set(received_signals()) <= {signal.SIGINT} else 143


def _tell_interrupted() -> int:
    code = _interrupted()
    _tell("interrupted", "E_INTERRUPTED", NEXT[code], code)
    return code


def _tell_bug() -> int:
    log = _write_crash_log()
    _tell(f"this is a bug in autoseg; the traceback is in {log}", "E_INTERNAL", "please report it with that file", 1)
    return 1


def _tell(message: str, code: str, hint: str | None, exit_code: int) -> None:
    screen = current_screen()
    if screen is not None:
        screen.close()
        screen.error = code
    print(fit_for_screen(f"autoseg: {message}"), file=sys.stderr)
    if hint:
        print(fit_for_screen(f"  next: {hint}"), file=sys.stderr)
    if screen is not None and screen.as_json:
        screen.finish(status="error", exit_code=exit_code, error={"code": code, "message": message, "hint": hint})


def _write_crash_log() -> Path:
    """The traceback in the current folder, or in the system's temporary one where nothing can be written here."""
    name = f"autoseg-error-{uuid.uuid4().hex[:8]}.log"
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            (folder / name).write_text(traceback.format_exc(), encoding="utf-8")
        except OSError:
            continue
        return folder / name
    return Path("nowhere: no folder can be written")
