"""The description of the service: its examples work, and no page of it loads anything from another host."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from limner.inference.pipeline import Pipeline
from limner.service.app import create_app
from limner.service.engine import Engine
from tests.service.world import BASE


@pytest.fixture(scope="module")
def shipped(pipeline: Pipeline) -> Iterator[TestClient]:
    """A service whose model has the name of the one in the examples; the fields of its answers are the same."""
    with TestClient(create_app(Engine({"limner-small": pipeline})), base_url=BASE) as client:
        yield client


def shape_of(value: Any) -> Any:
    """The fields of JSON and the types of what is in them.

    Without null, which descriptions leave out, and without what only calibrated models tell.
    """
    if isinstance(value, dict):
        named = {name: item for name, item in value.items() if name not in ("confidence", "unfamiliar")}
        return {name: shape_of(item) for name, item in named.items() if item is not None}
    return [shape_of(item) for item in value] if isinstance(value, list) else type(value)


def test_examples_of_requests_give_answers_like_the_examples(shipped: TestClient):
    paths = shipped.get("/openapi.json").json()["paths"]
    sent = 0
    for path, methods in paths.items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        if "example" not in content:
            continue
        assert content["example"].keys() <= content["schema"]["properties"].keys() | {"prompt"}, path
        answer = shipped.post(path, json=content["example"])
        assert answer.status_code == 200, path
        described = methods["post"]["responses"]["200"].get("content", {}).get("application/json", {})
        if "example" in described:
            assert shape_of(answer.json()) == shape_of(described["example"]), path
        sent += 1
    assert sent == 6
    listed = paths["/v1/models"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
    assert shape_of(shipped.get("/v1/models").json()) == shape_of(listed)


def test_there_are_no_pages_with_scripts_of_others(shipped: TestClient):
    assert shipped.get("/docs").status_code == shipped.get("/redoc").status_code == 404
    assert "http" not in shipped.get("/openapi.json").text.replace("https:", "")
