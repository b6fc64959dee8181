"""Every example in a docstring runs, in a folder with a picture, a recipe, a run and caption files."""

import doctest
import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from limner.runs.register import REGISTRIES

SOURCE = Path(__file__).parents[1] / "src"
MODULES = sorted(
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
PUBLIC = ("load", "Pipeline", "load_recipe", "train", "evaluate", "score", "compare", "explain", "register")


@pytest.fixture(scope="module")
def surroundings(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photo.jpg, recipe.yaml, runs/mine, and caption files a.json, b.json, refs.json."""
    folder = tmp_path_factory.mktemp("examples")
    Image.open(sorted((tiny / "world" / "images").glob("*.png"))[0]).convert("RGB").save(folder / "photo.jpg")
    shutil.copy(tiny / "tiny.yaml", folder / "recipe.yaml")
    shutil.copytree(tiny / "run", folder / "runs" / "mine")
    (folder / "a.json").write_text('{"1": "a dog runs", "2": "a red ball"}')
    (folder / "b.json").write_text('{"1": "a cat sits", "2": "a blue car"}')
    (folder / "refs.json").write_text('{"1": ["a dog runs fast", "the dog runs"], "2": ["a red ball", "the ball"]}')
    return folder


@pytest.fixture(autouse=True)
def unchanged_registries() -> Iterator[None]:
    """Removes what an example registers, so that later tests do not see it."""
    before = {kind: dict(registry) for kind, registry in REGISTRIES.items()}
    yield
    for kind, registry in REGISTRIES.items():
        for name in registry.keys() - before[kind].keys():
            del registry[name]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str, surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(surroundings)
    registered = {kind: dict(registry) for kind, registry in REGISTRIES.items()}
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    for kind, registry in REGISTRIES.items():  # later tests must not see what an example has registered
        for name in registry.keys() - registered[kind].keys():
            del registry[name]
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_function_has_an_example(name: str) -> None:
    import limner

    assert ">>> " in (getattr(limner, name).__doc__ or "")
