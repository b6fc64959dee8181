"""`limner` and `python -m limner`: the command line, also as torchrun starts it (`torchrun -m limner train ...`)."""

import sys


def entry() -> None:
    """The console script `limner`.  Ctrl-C while Python still imports is no error either."""
    try:
        from limner.apps.cli import entry as command_line

        command_line()
    except KeyboardInterrupt:
        print("limner: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    entry()
