"""`python -m limner`: the command line, also as torchrun starts it (`torchrun -m limner train ...`)."""

from limner.apps.cli import entry

entry()
