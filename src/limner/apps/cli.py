"""`limner COMMAND`: reads arguments, calls the library, says what happened.

Exit status: 0 all went well, 1 the command could not be done, 2 unknown arguments or such as do not go together, 3 done
except for skipped media.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from limner.apps.shared.arguments import WrongArguments
from limner.core.plugins import load_plugin
from limner.core.version import __version__

COMMANDS = (
    *("extract", "train", "evaluate", "score", "caption", "compare", "explain", "profile", "convert", "pack", "export"),
    *("shapes", "demo", "demo-train"),
)


def parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """Of these commands: a module of `limner.apps` each, which is loaded only when it is asked for."""
    root = argparse.ArgumentParser(
        prog="limner", description="Train, run, evaluate and explain captioners.", allow_abbrev=False
    )
    root.add_argument("--version", action="version", version=f"limner {__version__}")
    root.add_argument("--plugin", metavar="PACKAGE", help="load a plug-in first; give it before the command")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in names:
        module = import_module(f"limner.apps.{name.replace('-', '_')}")
        summary = (module.__doc__ or "").strip().splitlines()[0]
        sub = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # --re is no --resume: what is not a command's own may be a field of a recipe
        )
        module.add_arguments(sub)
        sub.set_defaults(command=module.run)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.  A user's mistake is one line on stderr; LIMNER_DEBUG=1 shows where it was found."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        given = _load_plugins(given)
    except ValueError as error:
        print(f"limner: {error}", file=sys.stderr)
        return 2
    options, rest = parser(given[:1] if given[:1] and given[0] in COMMANDS else COMMANDS).parse_known_args(given)
    command: Callable[[argparse.Namespace, list[str]], int] = options.command
    try:
        if hasattr(options, "device"):
            check_device(options.device)
        return command(options, rest)
    except (ValueError, OSError, FloatingPointError, ImportError) as error:
        if os.environ.get("LIMNER_DEBUG"):
            raise
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        advice = ": free some space; what was written before is intact, and --resume continues from it" if full else ""
        print(f"limner: {told(error)}{advice}", file=sys.stderr)
        return 2 if isinstance(error, WrongArguments) else 1
    except KeyboardInterrupt:
        print("limner: interrupted; what is finished is kept", file=sys.stderr)
        return 130


def _load_plugins(arguments: Sequence[str]) -> list[str]:
    """Load the plug-ins of `--plugin PACKAGE` in front of the command -> the other arguments."""
    rest = list(arguments)
    while rest and rest[0].partition("=")[0] == "--plugin":
        _, equals, package = rest.pop(0).partition("=")
        if not equals:
            if not rest:
                raise ValueError("--plugin needs the name of a package")
            package = rest.pop(0)
        load_plugin(package)
    return rest


def told(error: Exception) -> str:
    """What an error says, in words also where it is the system's."""
    if not isinstance(error, OSError) or error.filename is None or not isinstance(error.filename, str | os.PathLike):
        return str(error)
    words = {
        FileNotFoundError: "there is no file or folder",
        NotADirectoryError: "a file lies where a folder is needed:",
        IsADirectoryError: "a folder lies where a file is needed:",
        PermissionError: "not permitted to read or write",
    }
    return f"{words[type(error)]} {os.fspath(error.filename)}" if type(error) in words else str(error)


def check_device(name: str) -> None:
    """Raises ValueError for a device that torch does not know or that this machine does not have."""
    if name == "cpu":  # every machine has one, and not every command needs torch
        return
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter from a torch that was built without CUDA
        raise ValueError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error


def entry() -> None:
    sys.exit(main())


if __name__ == "__main__":
    entry()
