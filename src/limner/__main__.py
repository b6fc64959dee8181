"""`python -m limner`, which is what torchrun starts."""

from limner.apps.cli import entry

entry()
