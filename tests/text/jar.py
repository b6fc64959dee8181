"""The oracle of the PTB tests: Stanford CoreNLP's tokenizer as coco-caption calls it.

`python -m tests.text.jar` asks it again for the answers in ptb_answers.json, its stand-in without Java.
"""

import json
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from limner.text.ptb import PUNCTUATION

ANSWERS = Path(__file__).with_name("ptb_answers.json")
NEUTRAL = "zqzq"  # a caption that changes nothing about the one before it
COMMAND = ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]


def pycocoevalcap() -> Path:
    spec = find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations or shutil.which("java") is None:
        pytest.skip("needs Java and pycocoevalcap")
    return Path(spec.submodule_search_locations[0])


def jar_lines(text: str) -> list[str]:
    """What the jar prints for a file of that text, line by line, after coco-caption's removal of punctuation."""
    jar = pycocoevalcap() / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    with tempfile.NamedTemporaryFile("wb", suffix=".txt") as file:
        file.write(text.encode())
        file.flush()
        done = subprocess.run(["java", "-cp", str(jar), *COMMAND, file.name], capture_output=True, check=True)
    lines = done.stdout.decode().split("\n")
    return [" ".join(token for token in line.rstrip().split(" ") if token not in PUNCTUATION) for line in lines]


def jar_tokenize(captions: list[str]) -> list[str]:
    return jar_lines("\n".join(captions))


def jar_isolated(captions: list[str]) -> list[str]:
    """Each caption before a neutral one; that they come back where they should shows that no line was shifted."""
    lines = jar_lines("\n".join(line for caption in captions for line in (caption, NEUTRAL)))
    assert len(lines) == 2 * len(captions) and set(lines[1::2]) == {NEUTRAL}
    return lines[::2]


def write_answers() -> None:
    from tests.text.hard_strings import hard_strings

    captions = hard_strings(800, seed=2026)
    answers = {"captions": captions, "together": jar_tokenize(captions), "isolated": jar_isolated(captions)}
    ANSWERS.write_text(json.dumps(answers, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_answers()
