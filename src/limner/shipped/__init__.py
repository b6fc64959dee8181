"""The models inside the package.  Their names stand wherever a run or a model may stand: `start: limner-small`.

A model is a folder `NAME.limner` beside this file, written by `limner pack`; to add one is to add its folder.  The
distribution limner-engine has `NAME.onnx`, written by `limner export`.
"""

import os
from pathlib import Path

FOLDER = Path(__file__).parent
SUFFIX = ".limner"
EXPORTED = ".onnx"
DEFAULT = "limner-small"  # of `limner.load()`, `limner caption` and `limner explain`
RECIPE = "recipes/limner_small.yaml"


def names() -> list[str]:
    """Return the names of the models inside the package, the default first."""
    found = {path.parent.name.removesuffix(SUFFIX) for path in FOLDER.glob(f"*{SUFFIX}/manifest.json")}
    found |= {path.parent.name.removesuffix(EXPORTED) for path in FOLDER.glob(f"*{EXPORTED}/model.json")}
    return sorted(found, key=lambda name: (name != DEFAULT, name))


def model(name: str = DEFAULT) -> Path:
    """Return the folder of a model inside the package: the packed one, or the exported one where it is the only one.

    Raises FileNotFoundError when this build has none.
    """
    folder = FOLDER / f"{name}{SUFFIX}"
    if not (folder / "manifest.json").is_file():
        if only := exported(name):
            return only
        raise FileNotFoundError(
            f"no model is inside this build of limner (there is no {folder}): name one with --model RUN, or make it in "
            f"the source tree with `limner train {RECIPE}` and `limner pack RUN --out src/limner/shipped/{folder.name}`"
        )
    return folder


def exported(name: str = DEFAULT) -> Path | None:
    """Return the exported form of a model inside the package; None when this build has none."""
    folder = FOLDER / f"{name}{EXPORTED}"
    return folder if (folder / "model.json").is_file() else None


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
