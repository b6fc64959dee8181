"""What to install for a part of limner that is not there.

The distribution `limner-engine` holds the modules that can be imported without PyTorch, `limner` holds the others.
"""

from importlib.util import find_spec


def missing_part(error: ImportError) -> str | None:
    """The message for a module that only the distribution `limner` brings along; None if that is installed.

    >>> missing_part(ModuleNotFoundError("No module named 'shtab'", name="shtab")) is None  # PyTorch is installed here
    True
    """
    if not error.name or find_spec("torch") is not None:
        return None
    package = error.name.partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) and package != "limner":  # a broken package, not an absent one
        return None
    needed = "PyTorch" if package in ("limner", "torch") else error.name
    return (
        f"this needs {needed}, which limner-engine does without: pip install limner (limner-engine itself captions "
        "with exported models)"
    )
