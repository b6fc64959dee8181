"""Errors of requests: a status, a reason in plain words, and the JSON that clients of each interface expect."""

from typing import Any

from starlette.responses import JSONResponse

OLLAMA = "/api/"  # paths of Ollama's interface begin so


class RequestError(Exception):
    """A request that is refused: `status` of HTTP, `message` for a person, `code` for a program."""

    def __init__(self, status: int, message: str, code: str = "invalid_request", retry_after: int | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.retry_after = status, message, code, retry_after

    def response(self, path: str, close: bool = False) -> JSONResponse:
        """The answer to a request for `path`; with `close`, the connection ends with it."""
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        headers |= {"Connection": "close"} if close else {}
        headers |= {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        return JSONResponse(error_body(path, self.status, self.message, self.code), self.status, headers)


def error_body(path: str, status: int, message: str, code: str) -> dict[str, Any]:
    """The JSON of an error: Ollama's clients read a string, those of OpenAI an object; limner's own are like OpenAI's.

    >>> error_body("/api/chat", 400, "no image", "no_image")
    {'error': 'no image'}
    >>> error_body("/v1/caption", 400, "no image", "no_image")["error"]["message"]
    'no image'
    """
    if path.startswith(OLLAMA):
        return {"error": message}
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
