"""The real clients of OpenAI and Ollama, over a socket: they call the service as they would call theirs."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from limner.inference.pipeline import Pipeline
from tests.service.world import images, png, served

openai = pytest.importorskip("openai")
ollama = pytest.importorskip("ollama")


@pytest.fixture(scope="module")
def address(pipeline: Pipeline) -> Iterator[str]:
    with served(pipeline) as found:
        yield found


@pytest.fixture(scope="module")
def gpt(address: str) -> Any:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def llama(address: str) -> Any:
    return ollama.Client(host=address)


def message(*contents: bytes) -> list[dict[str, Any]]:
    """A question with images, as OpenAI has it."""
    urls = [f"data:image/png;base64,{base64.b64encode(content).decode()}" for content in contents]
    parts = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in urls]
    return [{"role": "system", "content": "You are helpful."},
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}]  # fmt: skip


def test_a_chat_completion_is_the_caption(gpt: Any, pipeline: Pipeline, tiny: Path):
    (path,) = images(tiny, 1)
    expected = pipeline.caption(path)
    answer = gpt.chat.completions.create(
        model="tiny", messages=message(path.read_bytes()), temperature=0.2, max_tokens=300, top_p=0.9
    )
    (choice,) = answer.choices
    assert choice.message.content == expected.text and choice.message.role == "assistant"
    assert choice.finish_reason == ("stop" if expected.finished else "length")
    assert answer.model == "tiny" and answer.usage.completion_tokens == len(expected.words) + expected.finished


def test_choices_are_the_n_best_and_max_tokens_shortens(gpt: Any, pipeline: Pipeline, tiny: Path):
    (path,) = images(tiny, 1)
    best = pipeline.caption(path, beam=3, n_best=3)
    answer = gpt.chat.completions.create(model="tiny", messages=message(path.read_bytes()), n=3)
    assert [choice.message.content for choice in answer.choices] == [each.text for each in (best, *best.others)]
    answer = gpt.chat.completions.create(model="tiny", messages=message(path.read_bytes()), max_completion_tokens=3)
    short = pipeline.caption(path, max_length=3)
    assert answer.choices[0].message.content == short.text
    assert answer.choices[0].finish_reason == ("stop" if short.finished else "length")


def test_several_images_are_lines(gpt: Any, pipeline: Pipeline, tiny: Path):
    paths = images(tiny, 2)
    answer = gpt.chat.completions.create(model="tiny", messages=message(*(path.read_bytes() for path in paths)))
    assert answer.choices[0].message.content == "\n".join(pipeline.caption(path).text for path in paths)


def test_a_stream_of_words(gpt: Any, pipeline: Pipeline, tiny: Path):
    (path,) = images(tiny, 1)
    stream = gpt.chat.completions.create(
        model="tiny", messages=message(path.read_bytes()), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == pipeline.caption(path).text and len(chunks) > 3
    assert chunks[-2].choices[0].finish_reason in ("stop", "length") and chunks[-1].usage.total_tokens > 0


def test_errors_are_those_of_openai(gpt: Any):
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4o'; this service has tiny"):
        gpt.chat.completions.create(model="gpt-4o", messages=message(png()))
    with pytest.raises(openai.BadRequestError, match="there is no image in the request") as found:
        gpt.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}])
    assert found.value.code == "no_image" and found.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="a captioner writes a sentence, no JSON"):
        gpt.chat.completions.create(model="tiny", messages=message(png()), response_format={"type": "json_object"})
    with pytest.raises(openai.BadRequestError, match="it is a web page"):
        gpt.chat.completions.create(model="tiny", messages=message(b"<html>"))
    assert [model.id for model in gpt.models.list()] == ["tiny"] and gpt.models.retrieve("tiny").id == "tiny"


def test_ollama_generates_and_chats(llama: Any, pipeline: Pipeline, tiny: Path):
    (path,) = images(tiny, 1)
    expected = pipeline.caption(path).text
    answer = llama.generate("tiny", "Describe this image", images=[path.read_bytes()], options={"temperature": 0})
    assert answer.response == expected and answer.done and answer.eval_count > 0
    parts = list(llama.generate("tiny:latest", images=[str(path)], stream=True))
    assert "".join(part.response for part in parts) == expected
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    asked = [{"role": "user", "content": "What is it?", "images": [str(path)]}]
    chat = llama.chat("tiny", messages=[*asked, {"role": "assistant", "content": "?"}, {"role": "user"}])
    assert chat.message.content == expected and chat.message.role == "assistant"
    words = [part.message.content for part in llama.chat("tiny", messages=asked, stream=True)]
    assert "".join(words) == expected
    short = llama.generate("tiny", images=[str(path)], options={"num_predict": 3})
    assert short.response == pipeline.caption(path, max_length=3).text


def test_what_ollama_asks_before(llama: Any, address: str):
    assert [model.model for model in llama.list().models] == ["tiny:latest"]
    assert llama.ps().models[0].name == "tiny:latest"
    assert "vision" in llama.show("tiny").capabilities
    assert llama.generate("tiny").done_reason == "load"
    with pytest.raises(ollama.ResponseError, match="there is no model 'llava'; this service has tiny") as found:
        llama.generate("llava", images=[png()])
    assert found.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="there is no image in the request"):
        llama.chat("tiny", messages=[{"role": "user", "content": "hello"}])
    with pytest.raises(ollama.ResponseError, match="no JSON"):
        llama.generate("tiny", images=[png()], format="json")
