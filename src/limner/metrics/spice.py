"""SPICE, computed by the user's own copy of the published jar.  Anderson et al., "SPICE", ECCV 2016.

This module only calls the jar (panderson.me/spice, AGPL).  The jar is not shipped with limner, and nothing is
downloaded.  It needs CoreNLP 3.6.0 and its models in the folder `lib` beside it, and Java 8 or 11.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np

from limner.core.files import read_json
from limner.core.temporaries import temporary_folder
from limner.metrics.references import Candidates, References, Score

# From Java 16 on, fst 2.47 inside the jar may use these packages only with an option: InaccessibleObjectException.
OPEN_PACKAGES = ("java.io", "java.lang", "java.math", "java.net", "java.text", "java.util", "java.util.concurrent")
KNOWN_FAILURES = {  # part of Java's output: the cause, and what to do
    "edu/stanford/nlp": "the lib folder beside the jar lacks stanford-corenlp-3.6.0.jar or its models",
    "InaccessibleObjectException": "this Java is too new for the jar; put Java 8 or 11 first on PATH",
    "UnsupportedClassVersionError": "this Java is too old for the jar; put Java 8 or 11 first on PATH",
    "OutOfMemoryError": "Java has too little memory",
    "Could not reserve enough space": "this machine has too little memory for Java (-Xmx8G)",
    "Invalid or corrupt jarfile": "the jar is damaged or no jar; fetch it again",
}


def spice(candidates: Candidates, references: References, jar: str | Path, java: str = "java") -> Score:
    """SPICE's F-score of each medium, computed by the user's `jar`, in [0, 1]; the corpus value is the mean.

    The jar gets tokens, as in coco-caption, and parses all references at every call: minutes for 5,000 media.  Raises
    ValueError, with a message of one line, when the jar or Java is missing or fails.  The Java process never outlives
    the call.
    """
    jar = Path(jar).resolve()
    version = check_installation(jar, java)
    rows = sorted(range(len(references.ids)), key=references.ids.__getitem__)
    requests = [
        {"image_id": i, "test": candidates.tokenized[row], "refs": list(references.tokenized[row])}
        for i, row in enumerate(rows)
    ]
    with temporary_folder(gettempdir(), "limner-spice") as folder:
        answer = _run_jar(java, version, jar, requests, folder)
    segments = np.zeros(len(rows))
    segments[rows] = _f_scores(answer, len(rows))
    return Score(float(segments.mean()), segments)


def check_installation(jar: str | Path, java: str = "java") -> int:
    """The version of Java.  Raises ValueError when there is no jar, no Java, or a Java below 8."""
    if not Path(jar).is_file():
        raise ValueError(f"SPICE: there is no jar at {jar}; get it from panderson.me/spice and give its path")
    return java_version(java)


def java_version(java: str = "java") -> int:
    """The version of the program `java`: 8, 11, 17, ...  Raises ValueError when there is none, or one below 8."""
    path = shutil.which(java)
    if path is None:
        raise ValueError(f"SPICE needs Java 8 or 11, and there is no '{java}' on PATH; all other scores need no Java")
    done = subprocess.run([path, "-version"], capture_output=True, text=True, errors="replace", check=False)
    output = done.stderr + done.stdout
    version = re.search(r'version "(?:1\.)?(\d+)', output)
    if version is None:
        raise ValueError(f"SPICE: '{path} -version' does not name a version: {_error_line(output)}")
    if int(version[1]) < 8:
        raise ValueError(f"SPICE needs Java 8 or 11; {path} is Java {version[1]}")
    return int(version[1])


def _run_jar(java: str, version: int, jar: Path, requests: Sequence[dict[str, Any]], folder: Path) -> Any:
    """The jar's answer to the requests, as the JSON that it writes."""
    question, answer = folder / "given.json", folder / "answer.json"
    question.write_text(json.dumps(requests), encoding="ascii")  # independent of Java's locale
    options = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPEN_PACKAGES] if version >= 16 else []
    command = [java, "-Xmx8G", *options, "-jar", str(jar), str(question), "-out", str(answer), "-subset", "-silent"]
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            output = process.communicate()[0].decode(errors="replace")
        except BaseException:  # also KeyboardInterrupt: Java must end, and release the folder
            process.kill()
            process.wait()
            raise
    if process.returncode or not answer.is_file():
        reason = next((cause for sign, cause in KNOWN_FAILURES.items() if sign in output), "the jar failed")
        details = f"Java {version}, exit status {process.returncode}: {_error_line(output)}"
        raise ValueError(f"SPICE: {reason} ({details})")
    try:
        return read_json(answer)
    except ValueError as error:
        raise ValueError(f"SPICE: the jar's answer is not JSON (Java {version}: {_error_line(output)})") from error


def _f_scores(answer: Any, count: int) -> list[float]:
    """The F-scores of the jar's answer, in the order of the requests.  Raises ValueError unless each has one."""
    try:
        scores = {int(item["image_id"]): float(item["scores"]["All"]["f"]) for item in answer}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"SPICE: the jar's answer has another layout than that of spice-1.0 ({error!r})") from error
    undefined = [i for i in range(count) if not 0 <= scores.get(i, np.nan) <= 1]
    if undefined or len(scores) != count:
        raise ValueError(
            f"SPICE: the jar gave {len(scores)} scores for {count} media, {len(undefined)} of them undefined"
        )
    return [scores[i] for i in range(count)]


def _error_line(output: str) -> str:
    """The most telling line of a Java program's output: the first that names an exception, or the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "Exception" in line or "Error" in line]
    return next(iter(errors or lines[-1:]), "it printed nothing")[:200]
