"""Files about the project agree with each other and with the code: changelog, citation, continuous integration."""

import re
from pathlib import Path

import pytest
import yaml

from limner.core.migration import FIELDS
from tests.test_readme import relative_links

ROOT = Path(__file__).parents[1]

RECIPES = sorted(path.name for path in (ROOT / "recipes").glob("*.yaml"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def released() -> list[str]:
    """The versions of the changelog, newest first."""
    return re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", read("CHANGELOG.md"), re.MULTILINE)


def test_the_newest_version_is_the_same_everywhere() -> None:
    (version,) = re.findall(r'^__version__ = "([^"]+)"$', read("src/limner/core/version.py"), re.MULTILINE)
    citation = yaml.safe_load(read("CITATION.cff"))
    assert released()[0] == version == citation["version"]
    assert f"## [{version}] - {citation['date-released']}" in read("CHANGELOG.md")


def test_every_renamed_field_is_in_the_changelog() -> None:
    rows = {tuple(cell.strip() for cell in line.strip(" |").split("|")) for line in read("CHANGELOG.md").splitlines()}
    listed = {(row[1].strip("`"), row[2].strip("`")) for row in rows if len(row) == 3}
    renamed = {pair for names in FIELDS.values() for pair in names.items()}
    assert renamed - listed == set()
    assert (
        "teacher`, or `T_loss` in tenths",
        "teacher_weight`, from 0 to 1",
    ) in listed  # see migration._teacher_weight


def test_continuous_integration_runs_every_supported_python() -> None:
    job = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["test"]
    (oldest,) = re.findall(r'^requires-python = ">=3\.(\d+)"$', read("pyproject.toml"), re.MULTILINE)
    assert job["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(int(oldest), 14)]
    assert job["steps"][-1] == {"run": ".ci/run"}


def test_hooks_are_local_and_their_tools_are_in_the_dev_extra() -> None:
    (repo,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repo["repo"] == "local"
    tools = {hook["entry"].split()[0].removeprefix(".venv/bin/") for hook in repo["hooks"]}
    assert tools == {"ruff", "mypy", "lint-imports"}
    assert '"ruff>=' in read("pyproject.toml") and '"mypy>=' in read("pyproject.toml")
    assert '"import-linter>=' in read("pyproject.toml")


@pytest.mark.parametrize("name", ["bug", "feature", "question"])
def test_issue_templates_are_forms_with_a_required_answer(name: str) -> None:
    form = yaml.safe_load(read(f".github/ISSUE_TEMPLATE/{name}.yml"))
    assert form["name"] == name.capitalize()
    assert form["description"]
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids))
    assert any(part.get("validations", {}).get("required") for part in form["body"])


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_every_relative_link_of_the_root_pages_exists(name: str) -> None:
    assert [link for link in relative_links(read(name)) if not (ROOT / link).exists()] == []


def test_contributing_is_the_same_page_in_the_documentation() -> None:
    assert read("docs/contributing.md") == read("CONTRIBUTING.md")
    assert relative_links(read("CONTRIBUTING.md")) == []  # they could not be right in both places


@pytest.mark.parametrize("name", [name for name in RECIPES if (ROOT / "results" / name[:-5]).is_dir()])
def test_headers_of_measured_recipes_give_command_tokens_score_and_page(name: str) -> None:
    header = "".join(line for line in read(f"recipes/{name}").splitlines(keepends=True) if line.startswith("#"))
    assert re.search(rf"limner train recipes/{name}\b", header)
    micro_world = name.startswith("shapes_")  # judged by the exact truth, which has no tokens
    assert re.search(r"\d %" if micro_world else r"(PTB|simple) tokens.*CIDEr \.\d{3}", header)
    (page,) = re.findall(r"^# More: (docs/\S+)$", header, re.MULTILINE)
    assert (ROOT / page).is_file()
