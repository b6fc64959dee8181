"""The models inside the package.  Their names stand wherever a run or a model may stand: `start: limner-small`.

A model is a folder `NAME.limner` beside this file, written by `limner pack`; to add one is to add its folder.
"""

import os
from pathlib import Path

FOLDER = Path(__file__).parent
SUFFIX = ".limner"
DEFAULT = "limner-small"  # of `limner.load()`, `limner caption` and `limner explain`
RECIPE = "recipes/limner_small.yaml"


def names() -> list[str]:
    """Return the names of the models inside the package, the default first."""
    found = [path.name.removesuffix(SUFFIX) for path in FOLDER.glob(f"*{SUFFIX}") if (path / "manifest.json").is_file()]
    return sorted(found, key=lambda name: (name != DEFAULT, name))


def model(name: str = DEFAULT) -> Path:
    """Return the folder of a model inside the package.  Raises FileNotFoundError when this build has none."""
    folder = FOLDER / f"{name}{SUFFIX}"
    if not (folder / "manifest.json").is_file():
        raise FileNotFoundError(
            f"no model is inside this build of limner (there is no {folder}): name one with --model RUN, or make it in "
            f"the source tree with `limner train {RECIPE}` and `limner pack RUN --out src/limner/shipped/{folder.name}`"
        )
    return folder


def folder_of(source: str | os.PathLike[str]) -> Path:
    """Return the folder that a user means by the name of a model inside the package, or by a path.

    A name wins over a folder of that name in the working directory, which is written `./limner-small`.  A `Path` is
    always a path, since it does not keep the "./".

    >>> folder_of("limner-small").name
    'limner-small.limner'
    >>> folder_of("./limner-small"), folder_of("runs/mine")
    (PosixPath('limner-small'), PosixPath('runs/mine'))
    """
    return model(source) if isinstance(source, str) and source in names() else Path(source).expanduser()


def known_names() -> str:
    """Return the end of a message about an unknown name: which models are inside the package."""
    return (
        f"the models inside limner are {', '.join(names())}" if names() else "no model is inside this build of limner"
    )
