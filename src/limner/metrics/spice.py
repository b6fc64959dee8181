"""SPICE, computed by the user's own jar.  Anderson et al., "SPICE", ECCV 2016.

An adapter only: the jar (panderson.me/spice, AGPL) is not shipped and nothing is fetch_from_hub.  It needs CoreNLP
3.6.0 and its models in the `lib` folder beside it, and Java 8 or 11.  No other score goes by this name here.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from limner.core.files import read_json
from limner.metrics.references import Candidates, References, Score

# From Java 16 on, fst 2.47 of the jar may not look into these packages unasked: InaccessibleObjectException.
OPENED = ("java.io", "java.lang", "java.math", "java.net", "java.text", "java.util", "java.util.concurrent")
LIKELY = {  # what Java says -> what to do
    "edu/stanford/nlp": "the lib folder beside the jar lacks stanford-corenlp-3.6.0.jar or its models",
    "InaccessibleObjectException": "this Java is too new for the jar; put Java 8 or 11 first on PATH",
    "UnsupportedClassVersionError": "this Java is too old for the jar; put Java 8 or 11 first on PATH",
    "OutOfMemoryError": "Java has too little memory",
    "Could not reserve enough space": "this machine has too little memory for Java (-Xmx8G)",
    "Invalid or corrupt jarfile": "the jar is damaged or no jar; fetch it again",
}


def spice(candidates: Candidates, references: References, jar: str | Path, java: str = "java") -> Score:
    """SPICE's F of each image by the user's `jar`, in [0, 1]; the corpus value is the mean.

    The jar gets the tokens, as in coco-caption, and parses the references at every call: minutes for 5,000 images.
    Raises ValueError, one line, when the jar or Java is missing or fails.  Java ends with this call, however it ends.
    """
    jar = Path(jar).resolve()
    version = ready(jar, java)
    rows = sorted(range(len(references.ids)), key=references.ids.__getitem__)
    asked = [
        {"image_id": i, "test": candidates.lines[row], "refs": list(references.lines[row])}
        for i, row in enumerate(rows)
    ]
    with TemporaryDirectory(prefix="limner-spice-") as folder:
        found = _run(java, version, jar, asked, Path(folder))
    segments = np.zeros(len(rows))
    segments[rows] = _scores(found, len(rows))
    return Score(float(segments.mean()), segments)


def ready(jar: str | Path, java: str = "java") -> int:
    """Java's version.  Raises ValueError unless the jar and a Java from 8 on are there."""
    if not Path(jar).is_file():
        raise ValueError(f"SPICE: there is no jar at {jar}; get it from panderson.me/spice and give its path")
    return java_version(java)


def java_version(java: str = "java") -> int:
    """8, 11, 17, ...  Raises ValueError when there is no Java, or one below 8."""
    path = shutil.which(java)
    if path is None:
        raise ValueError(f"SPICE needs Java 8 or 11, and there is no '{java}' on PATH; all other scores need no Java")
    said = subprocess.run([path, "-version"], capture_output=True, text=True, errors="replace", check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', said.stderr + said.stdout)
    if found is None:
        raise ValueError(f"SPICE: '{path} -version' does not name a version: {_last(said.stderr + said.stdout)}")
    if int(found[1]) < 8:
        raise ValueError(f"SPICE needs Java 8 or 11; {path} is Java {found[1]}")
    return int(found[1])


def _run(java: str, version: int, jar: Path, asked: Sequence[dict[str, Any]], folder: Path) -> Any:
    given, answer = folder / "given.json", folder / "answer.json"
    given.write_text(json.dumps(asked), encoding="ascii")  # whatever the locale is
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED] if version >= 16 else []
    command = [java, "-Xmx8G", *opened, "-jar", str(jar), str(given), "-out", str(answer), "-subset", "-silent"]
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            said = process.communicate()[0].decode(errors="replace")
        except BaseException:  # Ctrl-C too: Java must not go on without us, nor hold the folder
            process.kill()
            process.wait()
            raise
    if process.returncode or not answer.is_file():
        reason = next((what for sign, what in LIKELY.items() if sign in said), "the jar failed")
        raise ValueError(f"SPICE: {reason} (Java {version}, exit status {process.returncode}: {_last(said)})")
    try:
        return read_json(answer)
    except ValueError as error:
        raise ValueError(f"SPICE: the jar's answer is not JSON (Java {version}: {_last(said)})") from error


def _scores(found: Any, count: int) -> list[float]:
    """F by the number of the item.  Raises ValueError unless each item has one."""
    try:
        scores = {int(item["image_id"]): float(item["scores"]["All"]["f"]) for item in found}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"SPICE: the jar's answer has another layout than that of spice-1.0 ({error!r})") from error
    bad = [i for i in range(count) if not 0 <= scores.get(i, np.nan) <= 1]
    if bad or len(scores) != count:
        raise ValueError(f"SPICE: the jar gave {len(scores)} scores for {count} images, {len(bad)} of them undefined")
    return [scores[i] for i in range(count)]


def _last(said: str) -> str:
    """The line of a Java program's output that says most: its first exception, or the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if "Exception" in line or "Error" in line]
    return next(iter(errors or lines[-1:]), "it said nothing")[:200]
