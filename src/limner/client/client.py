"""`Client`: captions with the model of a `limner serve`, over HTTP.

Client("http://localhost:8000").caption("photo.jpg").text
"""

import base64
import io
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.core.torch_free import Caption, Failure, Source
from limner.data.frames import FrameSampling
from limner.data.images import MediaError
from limner.data.media import frames_of
from limner.data.prefetch import prefetch
from limner.decode.clip_options import ClipMethod
from limner.decode.options import Beam, Decoding, with_options
from limner.decode.rules import Rules

RETRIES = 20  # when the service is busy (429)
FRAME_MILLISECONDS = 100  # of the frames of an array, which travel as an animation
UNREADABLE = (413, 422)  # statuses of media that cannot be captioned


class Client:
    """Captions images and clips with a model of a service; the same interface as `limner.Pipeline`.

    Files travel as they are, and arrays as lossless images or animations.  What a service does not offer is an error:
    sampling, and options of a beam other than size, n_best, must, never and max_length.
    """

    def __init__(self, address: str, token: str = "", timeout: float = 300.0, connections: int = 8):
        """`address` is that of the service, and may end in `#NAME` of one of its models (else the first one).

        `token` is the service's bearer token; `timeout` in seconds is for one answer; `captions` asks for so many
        media at a time as there are `connections`.
        Raises ValueError when no service answers there, or it has no such model.
        """
        self.address, _, wanted = address.partition("#")
        self.address = self.address.rstrip("/")
        self._token, self._timeout, self._connections = token, timeout, connections
        try:
            models = self._ask("/v1/models", None)["data"]
            known = {model["id"]: model for model in models}
            info = known[wanted] if wanted in known or wanted else models[0]
            self.model: str = info["id"]
            self.frames = int(info["frames"])
            self.clip: ClipMethod = info["clip"]
            self.decoding = _beam(info["decoding"])
            self._fingerprint: str = info["fingerprint"]
        except KeyError as error:
            if wanted and wanted not in known:
                names = ", ".join(known)
                raise ValueError(f"{self.address} has no model {wanted!r}; it has {names}") from error
            raise ValueError(f"what answers at {self.address} is no `limner serve` of this version") from error
        except (OSError, TypeError, IndexError) as error:
            raise ValueError(f"no `limner serve` answers at {self.address} ({error})") from error
        self.vocabulary = None  # it stays with the service

    @property
    def name(self) -> str:
        """Address of the service and name of the model."""
        return f"{self.address}#{self.model}"

    @property
    def sampling(self) -> FrameSampling:
        """How frames are taken from a clip that is cut here."""
        return FrameSampling(self.frames)

    def fingerprint(self) -> str:
        """Hex digest of the weights."""
        return self._fingerprint

    def caption(self, source: Source, decoding: Decoding | None = None, **options: Any) -> Caption:
        """Caption one image or clip, as `Pipeline.caption`.

        Raises MediaError when it cannot be read, ValueError for a decoding that a service does not offer, OSError when
        the service does not answer.
        """
        search = with_options(decoding or self.decoding, **options)
        return self._caption(self.read(source, [])[0], self._fields(search))

    def captions(
        self, sources: Iterable[Source], decoding: Decoding | None = None, batch_size: int = 16, **options: Any
    ) -> Iterator[tuple[Source, Caption | Failure]]:
        """Caption many images or clips, as `Pipeline.captions`; the service decides about batches."""
        fields = self._fields(with_options(decoding or self.decoding, **options))

        def work(source: Source) -> Caption | Failure:
            try:
                return self._caption(self.read(source, [])[0], fields)
            except MediaError as error:
                name = fspath(source) if isinstance(source, (str, PathLike)) else f"<{type(source).__name__}>"
                return Failure(name, str(error))

        return prefetch(work, sources, window=2 * self._connections, workers=self._connections)

    def read(self, source: Source, notes: list[str]) -> tuple[UInt8[np.ndarray, "1 bytes"]]:
        """The bytes that are sent for a source.  Raises MediaError when there is no such file."""
        if isinstance(source, (str, PathLike)) and Path(source).is_file():
            content = Path(source).read_bytes()
        elif isinstance(source, bytes):
            content = source
        else:
            content = _encoded(frames_of(source, self.sampling, notes))
        return (np.frombuffer(content, np.uint8)[None],)

    def decode(self, pixels: Sequence[tuple[np.ndarray]], decoding: Decoding) -> list[Caption]:
        """Caption media that `read` has returned."""
        fields = self._fields(decoding)
        with ThreadPoolExecutor(self._connections) as pool:
            return list(pool.map(lambda part: self._caption(part[0], fields), pixels))

    def _fields(self, decoding: Decoding) -> dict[str, Any]:
        """The options of a request.  Raises ValueError for a decoding that a service does not offer."""
        if not isinstance(decoding, Beam):
            raise ValueError(f"a service searches with a beam here, not with {decoding.name!r}: leave it out")
        own = self.decoding
        changed = {
            "beam": (decoding.size, own.size),
            "n_best": (decoding.n_best, own.n_best),
            "must": (list(decoding.must), list(own.must)),
            "max_length": (decoding.rules.max_length, own.rules.max_length),
            "never": (list(decoding.rules.never), list(own.rules.never)),
        }
        rules = replace(decoding.rules, max_length=own.rules.max_length, never=own.rules.never)
        if replace(decoding, size=own.size, n_best=own.n_best, must=own.must, rules=rules) != own:
            raise ValueError(f"a service has these options of a beam only: {', '.join(changed)}; leave out the others")
        return {name: value for name, (value, usual) in changed.items() if value != usual}

    def _caption(self, content: np.ndarray, fields: Mapping[str, Any]) -> Caption:
        text = base64.b64encode(content.tobytes()).decode()
        asked = {"image": text, "model": self.model, "whole": True, "attention": True, **fields}
        answer = self._ask("/v1/caption", asked)
        words = answer.get("words") or []
        maps = np.array([word["attention"] for word in words], np.float32) if words else _no_maps()
        others = tuple(Caption(it["caption"], it["logprob"], (), _no_maps()) for it in answer["others"])
        return Caption(
            answer["caption"], answer["logprob"], tuple(word["word"] for word in words), maps, answer["finished"],
            others, tuple(answer["notes"]), answer.get("confidence"), answer.get("unfamiliar"),
        )  # fmt: skip

    def _ask(self, path: str, body: Mapping[str, Any] | None) -> Any:
        """The JSON answer of the service; waits and asks again while it is busy."""
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(RETRIES + 1):
            try:
                request = urllib.request.Request(self.address + path, data, headers)
                with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code == 429 and attempt < RETRIES:
                    time.sleep(float(error.headers.get("Retry-After", 1)))
                    continue
                raise _error(error) from error
            except json.JSONDecodeError as error:
                raise ConnectionError("the answer is not JSON") from error
        raise AssertionError("the last attempt returns or raises")


def _error(error: urllib.error.HTTPError) -> Exception:
    """The error of an answer with another status than 200."""
    try:
        message = json.load(error)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"the service answered with status {error.code}"
    if error.code in UNREADABLE:
        return MediaError(message)
    return ValueError(message) if 400 <= error.code < 500 else ConnectionError(message)


def _beam(fields: Mapping[str, Any]) -> Beam:
    """The decoding of the service's model."""
    rules: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in fields["rules"].items()}
    return Beam(**{**fields, "must": tuple(fields["must"]), "rules": Rules(**rules)})


def _encoded(frames: UInt8[np.ndarray, "T H W 3"]) -> bytes:
    """A PNG of one frame, a lossless animation of several."""
    first, *more = [Image.fromarray(frame) for frame in frames]
    file = io.BytesIO()
    if more:
        first.save(file, "WEBP", save_all=True, append_images=more, lossless=True, duration=FRAME_MILLISECONDS)
    else:
        first.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _no_maps() -> np.ndarray:
    return np.zeros((0, 1, 1, 1), np.float32)
