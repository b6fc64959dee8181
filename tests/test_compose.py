"""compose.yaml without a container engine: its keys, what it promises, and that its commands run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from limner.apps.cli import parser

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]

# the keys of the Compose specification that are used here, and the type of their values
KEYS = {
    "build": dict, "image": str, "command": list, "ports": list, "environment": dict, "read_only": bool, "tmpfs": list,
    "cap_drop": list, "security_opt": list, "pids_limit": int, "init": bool, "restart": str, "stop_grace_period": str,
    "healthcheck": dict, "profiles": list, "deploy": dict, "user": str, "volumes": list, "network_mode": str,
}  # fmt: skip
DURATION = re.compile(r"(\d+h)?(\d+m)?(\d+s)?")


def test_every_key_is_one_that_compose_has():
    assert set(yaml.safe_load(TEXT)) == {"services"}
    for name, service in SERVICES.items():
        wrong = [key for key, value in service.items() if not isinstance(value, KEYS.get(key, ()))]
        assert wrong == [], name
        assert set(service["build"]) <= {"context", "args"} and (ROOT / service["build"]["context"]).is_dir()
        check = service.get("healthcheck", {})
        assert set(check) in (set(), {"test", "interval", "timeout", "retries", "start_period"})
        durations = [check[key] for key in ("interval", "timeout", "start_period") if key in check]
        assert all(DURATION.fullmatch(text) for text in [*durations, service["stop_grace_period"]])


def test_every_service_may_do_as_little_as_possible():
    """Not root (the image sees to that, or `user`), nothing writable but /tmp and the folder, no capabilities."""
    for service in SERVICES.values():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"] and service["pids_limit"] > 0
        assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert not re.match(r"\$?\{?[A-Z_:-]*(0|root)\b", service.get("user", "10001"))
    assert SERVICES["watch"]["network_mode"] == "none"


def test_the_variables_have_defaults():
    assert re.findall(r"\$\{(\w+)(?!\w*:-)", TEXT) == []


def test_cuda_is_a_build_argument_of_the_dockerfile():
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (argument,) = SERVICES["cuda"]["build"]["args"]
    assert f"ARG {argument}=" in dockerfile and SERVICES["cuda"]["image"] != SERVICES["limner"]["image"]
    devices = SERVICES["cuda"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert SERVICES["cuda"]["command"][-2:] == ["--device", "cuda"]


@pytest.mark.parametrize("name", SERVICES)
def test_the_commands_are_those_of_limner(name: str):
    options = parser().parse_args(SERVICES[name]["command"])
    assert options.command == f"limner.apps.{SERVICES[name]['command'][0]}"
    if "ports" in SERVICES[name]:
        assert [port.rpartition(":")[2] for port in SERVICES[name]["ports"]] == [str(options.port)]


def test_only_services_without_a_profile_start_by_themselves():
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["limner"]


def test_the_service_and_its_health_check(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command of compose.yaml, on a free port; nothing is written outside the temporary folder."""
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    for folder in (home, temporary):
        folder.mkdir()
    for name, folder in (("HOME", home), ("TMPDIR", temporary), ("MPLCONFIGDIR", temporary)):
        monkeypatch.setenv(name, str(folder))
    words = SERVICES["limner"]["command"]
    free = [*(word if word != "8000" else "0" for word in words), "--model", str(tiny / "run")]
    command = [sys.executable, "-m", "limner", *free]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None and process.stderr is not None
        port = process.stdout.readline().rpartition(":")[2].strip()
        assert port.isdigit(), process.stderr.read()
        kind, *check = SERVICES["limner"]["healthcheck"]["test"]
        check = [sys.executable if word == "python" else word.replace("8000", port) for word in check]
        assert kind == "CMD" and shlex.join(check).count(port) == 1
        assert subprocess.run(check, capture_output=True, check=False).returncode == 0
        process.terminate()
        assert process.wait(60) == 0
        assert "it is open to anyone, without a token" in process.stderr.read()
    assert subprocess.run(check, capture_output=True, check=False).returncode != 0
    assert list(home.rglob("*")) == [] and sorted(path.name for path in tmp_path.iterdir()) == ["home", "tmp"]
