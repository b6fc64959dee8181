"""`--help` fits the screen and says what there is; completion knows the commands."""

import subprocess
from pathlib import Path

import pytest

from limner.apps.cli import COMMANDS, main, parser

GONE = ("length-penalty", "min-length", "allow-unknown", "allow-repeats", "normalise", "groups", "no-trigrams",
        "no-bad-endings")  # fmt: skip
KEPT = ("beam", "max-length", "n-best", "must", "never", "sample", "temperature", "top-k", "top-p", "seed")


def help_of(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """At most 60 lines of 80 columns, of caption and watch 92; a usage line, what it does, and a command to copy."""
    lines = help_of(name, monkeypatch, capsys).splitlines()
    assert len(lines) <= (92 if name in ("caption", "watch") else 60) and max(map(len, lines)) <= 80
    assert lines[0].startswith(f"usage: limner {name} [options]") and lines[2][0].isupper()
    assert any(line.startswith(f"    limner {name}") for line in lines)


def test_rare_decoding_options_are_fields(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name, kept in (("caption", KEPT), ("evaluate", KEPT), ("explain", KEPT[:2]), ("profile", KEPT[:2])):
        text = help_of(name, monkeypatch, capsys)
        assert not [flag for flag in GONE if f"--{flag}" in text]
        assert not [flag for flag in kept if f"--{flag}" not in text] and "--decoding.length_penalty 0.5" in text


def test_the_list_of_commands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    text = help_of("--help", monkeypatch, capsys)
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("    ") and line[4] != " "]
    assert listed == list(COMMANDS)
    assert "exit status: 0 all well, 1 could not be done, 2 wrong arguments, 3 done" in " ".join(text.split())


def test_bash_completes_commands_options_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("shtab")
    assert main(["--print-completion", "bash"]) == 0
    script = tmp_path / "limner.bash"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "photo.jpg").touch()

    def completed(*words: str) -> set[str]:
        asked = f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}; "
        call = f'source {script}; {asked} _shtab_limner; printf "%s\\n" "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", call], cwd=tmp_path, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert completed("limner", "exp") == {"explain", "export"}
    assert completed("limner", "caption", "--n-") == {"--n-best"}
    assert "photo.jpg" in completed("limner", "caption", "pho")
    assert completed("limner", "train", "--res") == {"--resume"}


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells(shell: str, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("shtab")
    assert main(["--print-completion", shell]) == 0
    script = capsys.readouterr().out
    assert "limner" in script and all(name in script for name in COMMANDS)


def test_completion_that_cannot_be(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert main(["--print-completion", "fish"]) == 2
    assert capsys.readouterr().err == "limner: --print-completion takes one of bash, zsh, tcsh\n"
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 1
    assert "pip install 'limner[completion]'" in capsys.readouterr().err


def test_options_of_every_command_have_a_text():
    """But for a few whose choices say it all."""
    for name in COMMANDS:
        (command,) = parser([name])._subparsers._group_actions[0].choices.values()  # type: ignore[union-attr]
        missing = {action.dest for action in command._actions if not action.help}
        assert missing <= {"format", "threads"}, (name, missing)
