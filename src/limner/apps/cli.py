"""`limner COMMAND`: parse the arguments, run the command, report errors in one line.

Exit status: 0 all well, 1 it could not be done, 2 wrong arguments, 3 done but some files were skipped, 130 interrupted.
"""

import argparse
import errno
import gc
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module

from limner.apps.shared.arguments import WrongArguments, split_dotted
from limner.apps.shared.help import HelpFormatter
from limner.apps.shared.interrupts import Interrupts, signals_as_interrupts
from limner.apps.shared.startup import collector_paused
from limner.apps.shared.streams import escaped_output
from limner.core.version import __version__

COMMANDS = (
    *("caption", "alt", "watch", "serve", "explain", "init", "check", "train", "distill", "evaluate", "score"),
    *("compare", "calibrate", "average", "extract", "merge", "profile", "convert", "pack", "export", "shapes"),
    *("demo", "demo-train"),
)
SHELLS = ("bash", "zsh", "tcsh")
PATHS = (
    *("FILE", "PAGE", "DIR", "PATH", "FOLDER", "RUN", "RECIPE", "CHECKPOINT", "CLIP", "FILE.json", "FILE.html"),
    "[RUN] FILE",
)
REPORTED = (ValueError, OSError, FloatingPointError, ImportError)  # in one line; others are faults of limner
STATUS = (
    "exit status: 0 all well, 1 could not be done, 2 wrong arguments, 3 done but some files skipped, 130 interrupted"
)


def parser(names: Iterable[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of some commands.

    It imports their options, `limner.apps.options.COMMAND`, and none of the modules that do the work.
    """
    root = argparse.ArgumentParser(
        prog="limner",
        description="Train, run, evaluate and explain image and video captioners.",
        epilog=STATUS,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"limner {__version__}")
    root.add_argument("--plugin", metavar="PACKAGE", help="load a plug-in first; give it before the command")
    root.add_argument("--print-completion", choices=SHELLS, help="print a script for completion with Tab")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND", prog="limner")
    for name in names:
        module_name = name.replace("-", "_")
        module = import_module(f"limner.apps.options.{module_name}")
        summary = (module.__doc__ or "").strip().splitlines()[0]
        sub = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=HelpFormatter,
            allow_abbrev=False,  # --re is not --resume: an unknown option may be a field of a recipe
        )
        module.add_arguments(sub)
        sub.set_defaults(command=f"limner.apps.{module_name}")
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    A user's mistake is one line on stderr; with LIMNER_DEBUG=1 it is a traceback.
    """
    with escaped_output():
        return _run(sys.argv[1:] if arguments is None else list(arguments))


def _run(given: Sequence[str]) -> int:
    """`main` with escaped output."""
    if given[:1] == ["--print-completion"]:
        return _print_completion(given[1:])
    options = argparse.Namespace(command="")
    try:
        words, dotted = split_dotted(_load_plugins(given))
    except ValueError as error:
        print(f"limner: {error}", file=sys.stderr)
        return 2
    if words[:1] == ["compare"]:
        from limner.apps.options.compare import mark_groups

        words = mark_groups(words)
    interrupts = Interrupts()
    try:
        with signals_as_interrupts() as interrupts:
            known = words[:1] if words[:1] and words[0] in COMMANDS else COMMANDS
            options, unknown = parser(known).parse_known_args(words)
            if hasattr(options, "device"):
                check_device(options.device)
            with collector_paused():
                command = import_module(options.command)
            status = int(command.run(options, [*unknown, *dotted]))
            sys.stdout.flush()
            return status
    except BrokenPipeError:
        return _closed_pipe()
    except KeyboardInterrupt:
        return _interrupted(options, given)
    except Exception as error:
        if os.environ.get("LIMNER_DEBUG"):
            raise
        # a library may have made another error of an interrupt
        return _interrupted(options, given) if interrupts.came else _failed(error, options)


def _failed(error: Exception, options: argparse.Namespace) -> int:
    """Print an error that users can do something about -> the status.  Raises any other error."""
    if not isinstance(error, REPORTED) and not _is_out_of_memory(error):
        raise error
    print(f"limner: {error_message(error)}{_disk_advice(error, options)}", file=sys.stderr)
    return 2 if isinstance(error, WrongArguments) else 1


def _interrupted(options: argparse.Namespace, given: Sequence[str]) -> int:
    """Say that a command was interrupted, and how it goes on -> its status."""
    if os.environ.get("RANK", "0") == "0":  # torchrun starts several processes; one line is enough
        print(f"limner: interrupted{_advice(options, given)}", file=sys.stderr)
    return 130


def _closed_pipe() -> int:
    """What a command does when nobody reads its output any more, as in `limner caption photos | head -1`: it ends
    quietly, with the status that a shell gives to programs that SIGPIPE ends."""
    with open(os.devnull, "w") as nowhere, suppress(OSError, ValueError):  # the rest goes nowhere, also at exit
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    return 141


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; PyTorch raises RuntimeError for that, and imports of C code this SystemError."""
    words = ("out of memory", "not enough memory", "allocate memory", "error return without exception set")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def _load_plugins(arguments: Sequence[str]) -> list[str]:
    """Load the plug-ins that `--plugin PACKAGE` names in front of the command -> the other arguments.

    Raises ValueError when there is no such package.
    """
    rest = list(arguments)
    while rest and rest[0].partition("=")[0] == "--plugin":
        _, equals, package = rest.pop(0).partition("=")
        if not equals:
            if not rest:
                raise ValueError("--plugin needs the name of a package")
            package = rest.pop(0)
        from limner.core.plugins import load_plugin

        load_plugin(package)
    return rest


def _advice(options: argparse.Namespace, given: Sequence[str]) -> str:
    """What an interrupted command has kept, and the command that continues it."""
    interrupted = getattr(sys.modules.get(options.command), "interrupted", None)
    if interrupted is None:
        return ""
    more = ["--resume"] if _can_resume(options) and not options.resume else []
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    program = ["limner"] if processes == "1" else ["torchrun", "--nproc_per_node", processes, "-m", "limner"]
    return f"; {interrupted(options, shlex.join([*program, *given, *more]))}"


def _can_resume(options: argparse.Namespace) -> bool:
    """Whether a command has written something that its --resume would continue."""
    can_resume = getattr(sys.modules.get(options.command), "can_resume", None)
    return bool(can_resume and can_resume(options))


def _disk_advice(error: Exception, options: argparse.Namespace) -> str:
    """What to do when the disk is full, or the user's share of it; "" for other errors."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    resume = ", then continue with --resume" if _can_resume(options) else ""
    return f": free some space{resume}; files that were written before are intact"


def error_message(error: Exception) -> str:
    """The message of an error; those of the operating system in plain words."""
    if isinstance(error, ImportError):
        from limner.core.distributions import missing_part

        return missing_part(error) or str(error)
    if isinstance(error, UnicodeEncodeError) and error.encoding == sys.getfilesystemencoding() != "utf-8":
        return (
            f"the file name {error.object} cannot be opened in this locale, whose encoding is {error.encoding}: set "
            "PYTHONUTF8=1, or a locale with UTF-8"
        )
    if _is_out_of_memory(error):
        first = (str(error).splitlines() or [""])[0]
        return (
            f"there is not enough memory ({first:.200}): give a smaller batch size, model or file, or close "
            "other programs"
        )
    if not isinstance(error, OSError) or error.filename is None or not isinstance(error.filename, str | os.PathLike):
        return str(error)
    words = {
        FileNotFoundError: "there is no file or folder",
        FileExistsError: "there is a file where a folder is needed:",
        NotADirectoryError: "there is a file where a folder is needed:",
        IsADirectoryError: "there is a folder where a file is needed:",
        PermissionError: "no permission to read or write",
    }
    return f"{words[type(error)]} {os.fspath(error.filename)}" if type(error) in words else str(error)


def check_device(name: str) -> None:
    """Raise WrongArguments for a device that torch does not know, ValueError for one that this machine lacks."""
    if name == "cpu":  # every machine has one, and not every command needs torch
        return
    import torch

    try:
        torch.device(name)
    except RuntimeError as error:
        raise WrongArguments(f"--device {name}: unknown; give cpu, cuda, cuda:1 or mps") from error
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error


def _print_completion(words: Sequence[str]) -> int:
    """Print the completion script of a shell."""
    if len(words) != 1 or words[0] not in SHELLS:
        print(f"limner: --print-completion takes one of {', '.join(SHELLS)}", file=sys.stderr)
        return 2
    try:
        import shtab
    except ImportError:
        print("limner: completion needs shtab: pip install 'limner[completion]'", file=sys.stderr)
        return 1
    root = parser()
    for command in root._subparsers._group_actions[0].choices.values():  # type: ignore[union-attr]
        for action in command._actions:
            if action.metavar in PATHS:
                action.complete = shtab.FILE
    print(shtab.complete(root, words[0]))
    return 0


def entry() -> None:
    """The console script `limner`."""
    if os.name == "posix" and sys.executable and sys.getfilesystemencoding() not in ("utf-8", "utf8"):
        _restart_in_utf8_mode()
    status: int | str | None
    try:
        status = main()
    except SystemExit as ended:  # of argparse, after --help and wrong arguments
        status = ended.code
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = _closed_pipe()
    gc.freeze()  # or else Python searches all objects for garbage before it exits, .3 s with PyTorch
    sys.exit(status)


def _restart_in_utf8_mode() -> None:
    """Start again with file names in UTF-8: under LC_ALL=C no file that a recipe names 狗.png would be found.

    The console keeps its encoding, and what it lacks is escaped.
    """
    console = os.environ.get("PYTHONIOENCODING") or sys.stdout.encoding
    os.execve(
        sys.executable,
        [sys.executable, *sys.orig_argv[1:]],
        os.environ | {"PYTHONUTF8": "1", "PYTHONIOENCODING": console},
    )


if __name__ == "__main__":
    entry()
