"""Examples in the OpenAPI description: requests that work, and what limner-small answered to them."""

from typing import Any

from pydantic import BaseModel

from limner.service.options import Options

IMAGE = (  # a red square on grass green, 16 x 16 pixels
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAK0lEQVR42mO0mWbDQApg"
    "YiAR0F4DCzJnwaQ3WBUl5IkMZj8MBw2MwyAtAQDiqgU972V+rgAAAABJRU5ErkJggg=="
)
CAPTION = {"image": IMAGE, "name": "square.png", "n_best": 2}
CAPTION_ANSWER: dict[str, Any] = {
    "caption": "a red sign is sitting on a red wall",
    "logprob": -5.2966,
    "finished": True,
    "confidence": 0.2535,
    "unfamiliar": False,
    "others": [{"caption": "a red sign is sitting on a wall", "logprob": -4.8287}],
    "file": "square.png",
    "model": "limner-small",
    "notes": [],
}
BATCH = {"images": [IMAGE, "bm8gaW1hZ2U="], "beam": 1}
GREEDY_ANSWER = {  # not the search that was calibrated, so it has no confidence
    **{name: value for name, value in CAPTION_ANSWER.items() if name != "confidence"},
    "caption": "a red sign is sitting on a wall", "logprob": -4.8287, "others": [], "file": "",
}  # fmt: skip
BATCH_ANSWER: dict[str, Any] = {
    "model": "limner-small",
    "results": [
        GREEDY_ANSWER,
        {"file": "", "error": "not an image in a format that is read; replace or remove it"},
    ],
}
EXPLAIN = {"image": IMAGE, "method": "attention"}
MODELS_ANSWER: dict[str, Any] = {
    "object": "list",
    "data": [
        {
            "id": "limner-small",
            "object": "model",
            "created": 1796101683,
            "owned_by": "limner",
            "fingerprint": "87668930e15d0b7757b11c7655dd10fca885df1a259ae0a55ca5308d99ab5eeb",
            "words": 3726,
            "frames": 8,
            "clip": "consensus",
            "decoding": {
                "size": 3,
                "length_penalty": 0.0,
                "rules": {
                    "min_length": 3,
                    "max_length": 25,
                    "no_repeat_word": True,
                    "allow_unknown": False,
                    "no_repeat_trigram": False,
                    "bad_endings": [],
                    "never": [],
                },
                "finished_compete": False,
                "keep_beam_full": False,
                "drop_hopeless": True,
                "predict_start": False,
                "normalise": "avg",
                "n_best": 1,
                "groups": 1,
                "diversity": 0.5,
                "must": [],
                "name": "beam",
            },
            "methods": ["attention", "gradcam", "gradcam++", "saliency"],
        }
    ],
}
CHAT = {
    "model": "limner-small",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Describe this image."},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
            ],
        }
    ],
}
CHAT_ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1796101683-1",
    "created": 1796101684,
    "model": "limner-small",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "a red sign is sitting on a red wall", "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": {"prompt_tokens": 0, "completion_tokens": 10, "total_tokens": 10},
}
GENERATE = {"model": "limner-small", "prompt": "Describe this image.", "images": [IMAGE], "stream": False}
GENERATE_ANSWER: dict[str, Any] = {
    "model": "limner-small",
    "created_at": "2026-12-01T05:08:04.658022+00:00",
    "response": "a red sign is sitting on a red wall",
    "done": True,
    "done_reason": "stop",
    "total_duration": 95623479,
    "load_duration": 0,
    "prompt_eval_count": 0,
    "prompt_eval_duration": 0,
    "eval_count": 10,
    "eval_duration": 95623479,
}
OLLAMA_CHAT = {
    "model": "limner-small",
    "messages": [{"role": "user", "content": "Describe this image.", "images": [IMAGE]}],
    "stream": False,
}


def body(options: type[Options], field: str, example: dict[str, Any]) -> dict[str, Any]:
    """The description of a request with options and media: a form with files, JSON, or the bytes of a file."""
    schema = options.model_json_schema()
    fields, many = dict(schema["properties"]), field == "images"
    text = {"type": "string", "description": "An image or clip in base64, or as a data URL"}
    file = {"type": "string", "format": "binary"}
    media = {"type": "array", "items": text} if many else text
    files = {"type": "array", "items": file} if many else file
    whole: dict[str, Any] = {"type": "object", "required": [field], "properties": {field: media, **fields}}
    if not many:
        whole["properties"]["name"] = {"type": "string", "description": "The file's name, for the answer"}
    form = {"type": "object", "required": ["file"], "properties": {"file": files, **fields}}
    content = {
        "application/json": {"schema": whole, "example": example},
        "multipart/form-data": {"schema": form},
        "application/octet-stream": {"schema": file},
    }
    return {"requestBody": {"required": True, "content": content}}


def answer(example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The description of an answer with 200."""
    return {200: {"content": {"application/json": {"example": example}}}}


def json_body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """The description of a request that is JSON."""
    schema = inlined(model.model_json_schema())
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}


def inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema with its definitions in the places of their names."""
    definitions = schema.pop("$defs", {})

    def resolve(value: Any) -> Any:
        if isinstance(value, list):
            return [resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        if name := value.get("$ref"):
            return resolve(definitions[name.rpartition("/")[2]])
        return {key: resolve(item) for key, item in value.items()}

    resolved: dict[str, Any] = resolve(schema)
    return resolved
