"""How commands start: `--help` imports the standard library and the options, and nothing is imported before its use."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from limner.apps import cli
from limner.apps.cli import COMMANDS, main, parser
from limner.apps.shared.names import names_of
from limner.apps.shared.startup import collector_paused
from limner.data.datasets import DATASETS
from limner.inference.onnx import model
from limner.metrics.report import METRICS

# what the parser of any command needs of limner
OF_ALL = {"limner", "limner.apps", "limner.apps.cli", "limner.apps.options", "limner.apps.shared", "limner.core",
          "limner.core.version", *(f"limner.apps.shared.{name}" for name in ("arguments", "help", "interrupts", "names",
                                                                              "startup", "streams"))}  # fmt: skip


def modules_of(*arguments: str, code: str = "") -> set[str]:
    """The modules that a command imports in a new process, but for those of the standard library."""
    code = code or f"from limner.apps.cli import main\ntry: main({list(arguments)})\nexcept SystemExit: pass"
    script = f"import sys, json\nbefore = set(sys.modules)\n{code}\nprint(json.dumps([*set(sys.modules) - before]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    names = json.loads(done.stdout.splitlines()[-1])
    return {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names}


def test_the_help_of_all_commands_imports_their_options_only():
    """No NumPy, no PyTorch, no other package, and nothing of limner that does the work of a command."""
    options = {f"limner.apps.options.{name.replace('-', '_')}" for name in COMMANDS}
    assert modules_of("--help") == OF_ALL | options


@pytest.mark.parametrize("name", ["caption", "train"])
def test_the_help_of_a_command_imports_its_own_options_only(name: str):
    assert modules_of(name, "--help") == OF_ALL | {f"limner.apps.options.{name}"}


def test_every_command_has_options_and_work():
    folder = Path(cli.__file__).parent
    for names in (folder, folder / "options"):
        found = {path.stem for path in names.glob("*.py")} - {"__init__", "cli"}
        assert found == {name.replace("-", "_") for name in COMMANDS}


def test_the_built_in_names_are_those_of_the_registries():
    """In a new process, because tests of plug-ins add names to the registries of this one."""
    code = """
import importlib
from limner.apps.shared.names import BUILT_IN, names_of
expected = {name: list(names) for name, names in BUILT_IN.items()}
for name in BUILT_IN:
    importlib.import_module(name.rpartition(".")[0])
from limner.comparison.page import ITEMS_PER_DIRECTION
from limner.apps.cli import parser
assert parser(["compare"]).parse_args(["compare", "a", "b"]).items == ITEMS_PER_DIRECTION
assert {name: names_of(name) for name in BUILT_IN} == expected, {name: names_of(name) for name in BUILT_IN}
"""
    modules_of(code=code)


def test_names_of_plugins_are_choices(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A plug-in has loaded the registry that it adds to, which is then asked instead of the built-in names."""
    monkeypatch.setitem(METRICS, "WER", METRICS["CIDEr"])
    monkeypatch.setitem(DATASETS, "my_data", DATASETS["folder"])
    assert names_of("limner.metrics.report.METRICS")[-1] == "WER"
    for command, shown in (("score", "CIDEr-D, WER"), ("evaluate", "CIDEr-D, WER")):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert shown in " ".join(capsys.readouterr().out.split())
    assert parser(["extract"]).parse_args(["extract", "--data", "my_data"]).data == "my_data"


def test_the_collector_rests_during_imports_and_works_afterwards():
    assert gc.isenabled()
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
        assert not gc.isenabled()  # the inner one leaves it as it was
    assert gc.isenabled()


def test_nothing_is_searched_for_garbage_at_exit(monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    monkeypatch.setattr(cli, "main", lambda: done.append("main") or 3)
    monkeypatch.setattr(gc, "freeze", lambda: done.append("freeze"))
    with pytest.raises(SystemExit) as left:
        cli.entry()
    assert left.value.code == 3 and done == ["main", "freeze"]


def test_an_exported_model_is_captioned_with_few_packages(exported: Path, tiny: Path):
    """Without --engine: the folder tells it.  Neither PyTorch, nor what draws bars, reads YAML or decodes videos."""
    image = next((tiny / "world" / "images").iterdir())
    found = modules_of("caption", str(image), "--model", str(exported))
    assert {"onnxruntime", "numpy", "PIL", "limner.inference.onnx.pipeline"} <= found
    unneeded = {"torch", "transformers", "accelerate", "rich", "yaml", "av", "h5py", "matplotlib", "numba", "scipy"}
    assert not unneeded & {name.partition(".")[0] for name in found}
    assert "limner.runs.recipe" not in found and "limner.data.captions_file" not in found


@pytest.mark.parametrize(
    ("variable", "threads"), [(None, 1), ("3", 3), ("4,2", 4), (" 2 ", 2), ("", 1), ("0", 1), ("many", 1)]
)
def test_the_engine_has_one_thread_or_those_of_omp_num_threads(
    exported: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, threads: int
):
    monkeypatch.delenv("OMP_NUM_THREADS")
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    loaded = model.OnnxModel.load(exported)
    for session in (loaded.encoder, loaded.decoder):
        assert session.get_session_options().intra_op_num_threads == threads


def test_threads_of_both_engines(exported: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    image, asked, session = next((tiny / "world" / "images").iterdir()), [], model._session
    monkeypatch.setattr(model, "_session", lambda path, threads: asked.append(threads) or session(path, threads))
    assert main(["caption", str(image), "--model", str(exported), "--threads", "2"]) == 0
    assert asked == [2, 2]
    try:
        assert main(["caption", str(image), "--model", str(tiny / "run"), "--threads", "2"]) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_an_interrupt_before_the_command_is_imported(monkeypatch: pytest.MonkeyPatch):
    words = ["train", "recipe.yaml"]
    options = parser(["train"]).parse_args(words)
    monkeypatch.delitem(sys.modules, "limner.apps.train", raising=False)
    assert cli._advice(options, words) == ""
