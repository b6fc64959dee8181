"""The SPICE adapter with a script in place of Java: it records its arguments, and answers or fails as a test says."""

import json
import os
import signal
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from limner.metrics.references import Candidates, References
from limner.metrics.spice import java_version, spice

REFERENCES = References({"b": ["A cat sat.", "the cat"], "a": ["a dog"], "c": ["x"]}, "simple")
CANDIDATES = REFERENCES.candidates({"a": "A Dog!", "b": "a cat", "c": "größer\u2028\ud800"})

JAVA = """#!{python}
import json, sys, time
from pathlib import Path
here = Path(__file__).parent
version, way = (here / "version").read_text(), (here / "way").read_text()
if sys.argv[1:] == ["-version"]:
    print(f'openjdk version "{{version}}" 2025-04-15', file=sys.stderr)
    sys.exit()
out = Path(sys.argv[sys.argv.index("-out") + 1])
given = json.loads(Path(sys.argv[sys.argv.index("-jar") + 2]).read_text(encoding="ascii"))
(here / "asked").write_text(json.dumps([sys.argv[1:], given, str(Path.cwd())]))
if way == "sleep":
    import os
    (here / "pid").write_text(str(os.getpid()))
    time.sleep(60)
if way.startswith("say "):
    print(way[4:], file=sys.stderr)
    sys.exit(1)
if way.startswith("write "):
    out.write_text(way[6:])
elif way == "answer":
    # F is a fifth of the number of words of the candidate and its references; the answers come in another order
    rows = [(row["image_id"], len(" ".join([row["test"], *row["refs"]]).split()) / 10) for row in given]
    out.write_text(json.dumps([{{"image_id": i, "scores": {{"All": {{"f": f, "pr": 0}}}}}} for i, f in rows[::-1]]))
"""


@pytest.fixture
def java(tmp_path: Path) -> Path:
    path = tmp_path / "java"
    path.write_text(JAVA.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "spice-1.0.jar").write_bytes(b"jar")
    (tmp_path / "version").write_text("1.8.0_292")
    (tmp_path / "way").write_text("answer")
    return path


def asked(java: Path) -> tuple[list[str], list[dict], str]:
    return tuple(json.loads((java.parent / "asked").read_text()))  # type: ignore[return-value]


def run(java: Path, way: str = "answer", candidates: Candidates = CANDIDATES):
    (java.parent / "way").write_text(way)
    return spice(candidates, REFERENCES, java.parent / "spice-1.0.jar", str(java))


def test_the_jar_is_asked_by_sorted_ids_and_answers_by_theirs(java: Path):
    found = run(java)
    arguments, given, folder = asked(java)
    assert arguments[:3] == ["-Xmx8G", "-jar", str(java.parent / "spice-1.0.jar")]
    assert arguments[-2:] == ["-subset", "-silent"]
    assert [row["image_id"] for row in given] == [0, 1, 2]
    assert given[0] == {"image_id": 0, "test": "a dog", "refs": ["a dog"]}  # a comes first, and tokens are passed
    assert given[1] == {"image_id": 1, "test": "a cat", "refs": ["a cat sat", "the cat"]}
    # b has 2 + 3 + 2 words, a has 2 + 2, c has 1 + 1, in the references' order
    np.testing.assert_allclose(found.segments, [0.7, 0.4, 0.2])
    assert found.corpus == pytest.approx(1.3 / 3)
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("version", "number", "opens"),
    [("1.8.0_292", 8, False), ("11.0.22", 11, False), ("15", 15, False), ("16.0.1", 16, True), ("17.0.15", 17, True)],
)
def test_packages_are_opened_for_a_new_java_only(java: Path, version: str, number: int, opens: bool):
    (java.parent / "version").write_text(version)
    assert java_version(str(java)) == number
    run(java)
    opened = [argument for argument in asked(java)[0] if argument.startswith("--add-opens")]
    assert bool(opened) == opens  # Java 8 refuses to start with such an option
    assert not opens or "--add-opens=java.base/java.lang=ALL-UNNAMED" in opened


def test_what_must_be_there(java: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"no jar at .*nowhere\.jar; get it from"):
        spice(CANDIDATES, REFERENCES, tmp_path / "nowhere.jar", str(java))
    with pytest.raises(ValueError, match="needs Java 8 or 11, and there is no 'javanese' on PATH"):
        spice(CANDIDATES, REFERENCES, tmp_path / "spice-1.0.jar", "javanese")
    (tmp_path / "version").write_text("1.7.0_80")
    with pytest.raises(ValueError, match="is Java 7"):
        run(java)
    (tmp_path / "version").write_text("unknown")
    with pytest.raises(ValueError, match="does not name a version"):
        run(java)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("say Exception: NoClassDefFoundError: edu/stanford/nlp/x", "lib folder beside the jar lacks .* exit status 1"),
        ("say java.lang.reflect.InaccessibleObjectException: fst", "this Java is too new"),
        ("say UnsupportedClassVersionError", "this Java is too old"),
        ("say java.lang.OutOfMemoryError: heap\n  at x", "too little memory .*OutOfMemoryError: heap"),
        ("say first\nlast line", "the jar failed .*: last line"),
        ("say ", "the jar failed .*printed nothing"),
        ("be silent", "the jar failed"),  # exit status 0, and no answer
        ("write <html>", "answer is not JSON"),
        ("write ", "answer is not JSON"),
        ("write []", "gave 0 scores for 3 media, 3 of them undefined"),
        ("write {}", "gave 0 scores"),
        ('write [{"image_id": 0}]', "another layout"),
        ('write [{"image_id": 0, "scores": {"All": {"f": null}}}]', "another layout"),
    ],
)
def test_a_failure_is_one_line(java: Path, way: str, message: str):
    with pytest.raises(ValueError, match=message) as raised:
        run(java, way)
    assert "\n" not in str(raised.value) and not Path(asked(java)[2]).exists()


@pytest.mark.parametrize("score", ["NaN", "-0.5", "1.5"])
def test_a_score_out_of_range_is_none(java: Path, score: str):
    rows = ", ".join(f'{{"image_id": {i}, "scores": {{"All": {{"f": {score if i else 0.5}}}}}}}' for i in range(3))
    with pytest.raises(ValueError, match="gave 3 scores for 3 media, 2 of them undefined"):
        run(java, f"write [{rows}]")


def test_an_interrupt_ends_java(java: Path):
    def interrupt(*_: object) -> None:
        if not (java.parent / "pid").exists() or not (java.parent / "pid").read_text():
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            return
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(java, "sleep")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int((java.parent / "pid").read_text()), 0)
    assert not Path(asked(java)[2]).exists()


@pytest.mark.java
def test_the_jar_of_pycocoevalcap_lacks_its_models():
    package = pytest.importorskip("pycocoevalcap")
    jar = Path(package.__path__[0]) / "spice" / "spice-1.0.jar"
    try:
        java_version()
    except ValueError as error:
        pytest.skip(str(error))
    if not jar.is_file() or (jar.parent / "lib" / "stanford-corenlp-3.6.0.jar").is_file():
        pytest.skip(f"{jar} is missing, or complete")
    with pytest.raises(ValueError, match=r"lacks stanford-corenlp-3\.6\.0\.jar .*NoClassDefFoundError") as raised:
        spice(CANDIDATES, REFERENCES, jar)
    assert "\n" not in str(raised.value)
