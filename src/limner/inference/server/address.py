"""The address of a model behind a server: `openai:http://127.0.0.1:8000/v1#model-name`."""

from dataclasses import dataclass
from urllib.parse import urlsplit

OPENAI_PREFIX = "openai:"
EXAMPLE = "openai:http://127.0.0.1:8000/v1#model-name"


@dataclass(frozen=True)
class ServerAddress:
    """Where a server is, and the name of the model there ("": not given).

    >>> ServerAddress.parse("openai:http://127.0.0.1:8000/v1#llava")
    ServerAddress(scheme='http', host='127.0.0.1', port=8000, path='/v1', model='llava')
    """

    scheme: str
    host: str
    port: int
    path: str
    model: str

    @classmethod
    def parse(cls, text: str) -> "ServerAddress":
        """Raises ValueError for text that is no such address, and for a key or password inside it."""
        url = text.removeprefix(OPENAI_PREFIX)
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise ValueError(f"{text} is no address of a server ({error}); expected for example {EXAMPLE}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{text} is no address of a server; expected for example {EXAMPLE}")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                f"the address of {parts.hostname} holds a user name, a password or a query: a key is given in an "
                "environment variable (--key-variable), so that it is not written into outputs"
            )
        path = parts.path.rstrip("/").removesuffix("/chat/completions")
        return cls(parts.scheme, parts.hostname, port, path, parts.fragment)

    @property
    def url(self) -> str:
        """The address without the model."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return f"{self.scheme}://{host}{'' if self.port == usual else f':{self.port}'}{self.path}"

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine."""
        return self.host == "localhost" or self.host.startswith("127.") or self.host == "::1"
