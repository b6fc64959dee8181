"""`OpenAIPipeline`: captions by a model behind a server with the interface of OpenAI.

    OpenAIPipeline.load("openai:http://127.0.0.1:8000/v1#model-name").caption("photo.jpg").text

Pictures and the frames of clips are scaled down and sent as JPEG; several requests are under way at a time.  Nothing is
sent anywhere but to the address that the user gives.
"""

import base64
import hashlib
import io
import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from os import PathLike, fspath
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from limner.core.torch_free import Caption, Failure, Source, WithContext
from limner.data.frames import FrameSampling
from limner.data.media import frames_of
from limner.decode.clip_options import ClipMethod, clip_method
from limner.decode.options import Beam, Decoding, Sample, with_options
from limner.decode.rules import Rules
from limner.inference.batching import check_several_sources, source_name
from limner.inference.prompting import CLIP_FRAMES, MAX_NEW_TOKENS, Prompting, scaled_down
from limner.inference.server.address import OPENAI_PREFIX, ServerAddress
from limner.inference.server.client import RequestFailed, ServerClient, ServerUnusable
from limner.text.refusals import is_refusal
from limner.text.scripts import foreign_script

KEY_VARIABLE = "LIMNER_API_KEY"
REQUESTS = 4  # under way at a time
TIMEOUT = 300.0  # seconds of one attempt; a large model on a CPU takes minutes
FAILURES_IN_A_ROW = 10  # of the server, not of files: then the command stops
CHARACTERS_PER_TOKEN = 20  # a longer answer shows that the server ignores the limit of tokens
JPEG_QUALITY = 90
NO_ATTENTION = np.zeros((0, 1, 1, 1), np.float32)
# parameters that some servers do not know -> their other name; "": it is left out
REPLACEABLE = {"max_tokens": "max_completion_tokens", "logprobs": "", "temperature": "", "seed": ""}
THOUGHT = re.compile(r"^.*?</think>", re.DOTALL)  # what reasoning models write before the answer


class OpenAIPipeline:
    """Captions images and clips with a model behind a server; the same interface as `Pipeline`.

    A caption has the log-probability that the server tells, or NaN where it tells none, and no attention maps.
    """

    vocabulary = None
    clip: ClipMethod = "mosaic"  # frames are sent together

    def __init__(
        self,
        address: ServerAddress,
        prompting: Prompting = Prompting(),
        frames: int | None = None,
        requests: int = REQUESTS,
        connect: Callable[[], ServerClient] | None = None,
    ):
        """`frames` are sent of a clip (None: 4); `requests` are under way at a time; `connect` opens a client."""
        self.address, self.prompting, self.requests = address, prompting, requests
        self.frames = frames or CLIP_FRAMES
        self.sampling = FrameSampling(self.frames)
        self._connect = connect or (lambda: ServerClient(address))
        self._renamed: dict[str, str] = {}  # parameters that this server refused -> what takes their place

    @classmethod
    def load(
        cls,
        model: str | PathLike[str],
        frames: int | None = None,
        prompting: Prompting = Prompting(),
        requests: int = REQUESTS,
        timeout: float = TIMEOUT,
        key_variable: str = KEY_VARIABLE,
        clip: str | None = None,
    ) -> "OpenAIPipeline":
        """Check that a server answers.  `model` is `openai:URL#NAME`; #NAME may be left out where there is one model.

        The key is read from the environment variable `key_variable`; servers on this machine mostly need none.
        Raises ValueError when nobody answers, the key is wrong, the name is missing, and for a `clip` other than
        "mosaic": frames are sent together.
        """
        clip_method("clips", clip, fspath(model))
        address = ServerAddress.parse(fspath(model))
        key = os.environ.get(key_variable, "")
        if key and address.scheme == "http" and not address.is_local:
            raise ValueError(
                f"{address.url} is not encrypted, and the key in {key_variable} could be read on the way: give an "
                f"https address, or unset {key_variable}"
            )
        names = _models(ServerClient(address, key, min(timeout, 30.0)))
        if not address.model:
            if len(names) != 1:
                known = ", ".join(names[:10]) or "a list that could not be read"
                raise ValueError(f"name the model: {OPENAI_PREFIX}{address.url}#NAME; the server has {known}")
            address = replace(address, model=names[0])
        return cls(address, prompting, frames, requests, lambda: ServerClient(address, key, timeout))

    @property
    def name(self) -> str:
        """The address and the model."""
        return f"{OPENAI_PREFIX}{self.address.url}#{self.address.model}"

    @property
    def decoding(self) -> Beam:
        """Greedy search (temperature 0) of at most 64 tokens."""
        return Beam(1, rules=Rules(min_length=0, max_length=MAX_NEW_TOKENS, no_repeat_word=False, allow_unknown=True))

    @property
    def notes(self) -> tuple[str, ...]:
        """That pictures leave this machine, where they do."""
        return () if self.address.is_local else (f"pictures are sent to {self.address.url}",)

    def settings(self) -> dict[str, Any]:
        """What decides about captions besides the model and the decoding."""
        return self.prompting.settings()

    def fingerprint(self) -> str:
        """Hex digest of the model's name; the weights are not known."""
        return hashlib.sha256(f"openai {self.address.model}".encode()).hexdigest()

    def caption(self, source: Source, decoding: Decoding | None = None, **options: Any) -> Caption:
        """Caption one image or clip, as `Pipeline.caption`.

        Raises MediaError when the source cannot be read, ValueError for a decoding that servers do not have, and when
        no caption comes back.
        """
        search = with_options(decoding or self.decoding, **options)
        parameters(search)
        notes: list[str] = []
        (caption,) = self.decode([self.read(source, notes)], search)
        return replace(caption, notes=(*notes, *caption.notes))

    def captions(
        self, sources: Iterable[Source], decoding: Decoding | None = None, batch_size: int = 16, **options: Any
    ) -> Iterator[tuple[Source, Caption | Failure]]:
        """Caption many images or clips, in order; `batch_size` has no meaning here.

        A source without a usable answer is a Failure.  Raises ValueError when the server refuses all requests, or ten
        sources in a row got no answer.
        """
        check_several_sources(sources)
        search = with_options(decoding or self.decoding, **options)
        parameters(search)  # raises before anything is read
        return self._in_order(sources, search)

    def _in_order(self, sources: Iterable[Source], decoding: Decoding) -> Iterator[tuple[Source, Caption | Failure]]:
        """Yield results in the order of the sources, while requests for the next ones are under way."""
        client, failed = self._connect(), 0
        work = lambda source: self._result(client, source, decoding)  # noqa: E731
        remaining, waiting = iter(sources), deque[tuple[Source, Future[Caption | Failure | ValueError]]]()
        pool = ThreadPoolExecutor(self.requests)
        try:
            waiting.extend((item, pool.submit(work, item)) for item in islice(remaining, 2 * self.requests))
            while waiting:
                source, future = waiting.popleft()
                result = future.result()
                of_server = isinstance(result, RequestFailed) and result.status not in (400, 413, 422)
                failed = failed + 1 if of_server else 0
                if failed == FAILURES_IN_A_ROW:
                    raise ServerUnusable(
                        f"{self.address.url}: {failed} files in a row got no caption, the last because {result}; see "
                        "to the server, then continue with --resume"
                    )
                if isinstance(result, ValueError):
                    answer = result.answer if isinstance(result, NoCaption) else None
                    result = Failure(source_name(source), f"{source_name(source)}: {result}", False, answer)
                yield source, result
                waiting.extend((item, pool.submit(work, item)) for item in islice(remaining, 1))
        finally:
            client.close()  # requests under way end at once, also when the command is interrupted
            pool.shutdown(wait=True, cancel_futures=True)

    def _result(self, client: ServerClient, source: Source, decoding: Decoding) -> Caption | Failure | ValueError:
        """A caption; a Failure for a source that cannot be read; the error of a request that failed."""
        try:
            return self._caption(client, source, decoding)
        except ServerUnusable:
            raise
        except (RequestFailed, NoCaption) as error:
            return error
        except (ValueError, OSError) as error:
            return Failure(source_name(source), str(error))

    def decode(self, pixels: Sequence[tuple[np.ndarray, np.ndarray]], decoding: Decoding) -> list[Caption]:
        """Caption media that `read` has returned, one after the other.  Raises ValueError when no caption comes."""
        client = self._connect()
        try:
            return [self._asked(client, parts, decoding, "<array>") for parts in pixels]
        finally:
            client.close()

    def _caption(self, client: ServerClient, source: Source, decoding: Decoding) -> Caption:
        notes: list[str] = []
        caption = self._asked(client, self.read(source, notes), decoding, source_name(source))
        return replace(caption, notes=(*notes, *caption.notes))

    def _asked(
        self, client: ServerClient, parts: tuple[np.ndarray, np.ndarray], decoding: Decoding, name: str
    ) -> Caption:
        """The caption of a medium that was read: one request, or one per drawn caption."""
        messages = self._messages(*parts)
        seeds = [None] if isinstance(decoding, Beam) else _seeds(decoding.n_best)
        found = [self._ask(client, messages, decoding, seed) for seed in seeds]
        foreign = foreign_script(found[0].text, messages[-1]["content"][-1]["text"])
        notes = (f"{name}: the answer is written in {foreign}, unlike the prompt",) if foreign else ()
        return replace(found[0], others=tuple(found[1:]), notes=notes)

    def read(self, source: Source, notes: list[str]) -> tuple[UInt8[np.ndarray, "_ _ _ 3"], np.ndarray]:
        """The frames of a source, scaled down, and an array of one text: what is known about it."""
        context = ""
        if isinstance(source, WithContext):
            context, source = source.text, source.source
        frames = frames_of(source, self.sampling, notes, self.prompting.max_side)
        if len(frames) > self.frames:  # an array with more frames than are sent
            frames = frames[np.arange(self.frames) * len(frames) // self.frames]
        return np.stack([scaled_down(frame, self.prompting.max_side) for frame in frames]), np.array([context])

    def _messages(self, frames: UInt8[np.ndarray, "T h w 3"], context: np.ndarray) -> list[dict[str, Any]]:
        """The request for a medium: its frames as data URLs, then the prompt."""
        pictures = [data_url(frame) for frame in frames]
        content = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
        text = self.prompting.text(len(frames), context=str(context[0]))
        request = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
        return [*([{"role": "system", "content": self.prompting.system}] if self.prompting.system else []), request]

    def _ask(self, client: ServerClient, messages: Sequence[Any], decoding: Decoding, seed: int | None) -> Caption:
        """One request; parameters that the server does not know are renamed or left out from then on."""
        wanted = parameters(decoding) | ({} if seed is None else {"seed": seed})
        while True:
            known = {self._renamed.get(name, name): value for name, value in wanted.items()}
            known.pop("", None)
            try:
                answer = client.post(
                    "/chat/completions", {"model": self.address.model, "messages": messages, "stream": False, **known}
                )
            except RequestFailed as error:
                refused = [name for name in REPLACEABLE if error.status in (400, 422) and name in error.message]
                refused = [name for name in refused if name in wanted and name not in self._renamed]
                if not refused:
                    raise
                self._renamed |= {name: REPLACEABLE[name] for name in refused}
                continue
            return caption_of(answer, decoding.rules.max_length)


class NoCaption(ValueError):
    """The server answered, but not with a caption: `answer` is its text."""

    def __init__(self, message: str, answer: str = ""):
        super().__init__(message)
        self.answer = answer


def parameters(decoding: Decoding) -> dict[str, Any]:
    """The parameters of a request for a decoding.  Raises ValueError for what servers do not have."""
    rules = decoding.rules
    refused: dict[str, Any] = {
        "words that must not appear (--never)": rules.never,
        "a least number of words (--decoding.rules.min_length)": rules.min_length,
        "rules about words (--decoding.rules)": rules.bad_endings or rules.no_repeat_word or rules.no_repeat_trigram,
    }
    asked: dict[str, Any] = {"max_tokens": rules.max_length, "logprobs": True}
    if isinstance(decoding, Sample):
        refused |= {"--top-k": decoding.top_k}
        asked |= {"temperature": decoding.temperature}
        asked |= {} if decoding.top_p is None else {"top_p": decoding.top_p}
    elif isinstance(decoding, Beam):
        refused |= {"a beam (--beam)": decoding.size > 1, "words that must appear (--must)": decoding.must}
        asked |= {"temperature": 0}
    else:
        raise ValueError(f"a server has no search {decoding.name!r}: it answers greedily, or draws (--sample)")
    if requested := [name for name, value in refused.items() if value]:
        raise ValueError(f"{requested[0]}: a server answers greedily, or draws (--sample); leave it out")
    return asked


def caption_of(answer: Any, max_tokens: int) -> Caption:
    """The caption in the answer of a server.

    Raises RequestFailed when it has not the form of a chat completion, NoCaption when its text is empty, a refusal, or
    longer than `max_tokens` can be.
    """
    try:
        choice = answer["choices"][0]
        message, end = choice["message"], choice.get("finish_reason")
        content = message.get("content") or ""
        refusal = message.get("refusal") or ("its filter" if end == "content_filter" else "")
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise RequestFailed(f"the answer is no chat completion ({str(answer)[:80]!r})", 200) from error
    if refusal:
        raise NoCaption(f"the model refuses ({str(refusal)[:200]!r})", str(refusal))
    thought = THOUGHT.match(text)
    text = " ".join(text[thought.end() if thought else 0 :].encode("utf-8", "replace").decode().split())
    if not text:
        raise NoCaption("the answer has no text" + (" within the limit of tokens" if end == "length" else ""))
    if len(text) > CHARACTERS_PER_TOKEN * max_tokens:
        message = f"the answer has {len(text):,} characters, for a limit of {max_tokens} tokens ({text[:60]!r})"
        raise NoCaption(message, text)
    if is_refusal(text):
        raise NoCaption(f"the model refuses ({text[:200]!r})", text)
    return Caption(text, math.nan if thought else _logprob(choice), (), NO_ATTENTION, end != "length")


def _logprob(choice: Any) -> float:
    """The sum of the tokens' natural log-probabilities; NaN where the server tells none."""
    try:
        tokens = choice["logprobs"]["content"]
        total = float(sum(token["logprob"] for token in tokens)) if tokens else math.nan
    except (KeyError, TypeError, ValueError):
        return math.nan
    return total if math.isfinite(total) else math.nan


def data_url(frame: np.ndarray) -> str:
    """A frame, uint8 RGB (h, w, 3), as the data URL of a JPEG."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _seeds(count: int) -> list[int]:
    """A seed per drawn caption, from the seed of PyTorch, which --seed sets; at most 31 bits, as some servers want."""
    import torch  # only for drawn captions

    return [(torch.initial_seed() + k) % (1 << 31) for k in range(count)]


def _models(client: ServerClient) -> list[str]:
    """The names of the models that a server lists; none where it lists none.  Raises ValueError when nobody answers."""
    try:
        listed = client.get("/models")
    except RequestFailed as error:
        if error.status:  # it answers, and lists no models
            return []
        raise ValueError(f"{error}: start the server, or correct the address") from error
    except ServerUnusable as error:
        if error.status in (401, 403):
            raise
        return []
    finally:
        client.close()
    items = listed.get("data") if isinstance(listed, dict) else None
    return [str(item["id"]) for item in items or () if isinstance(item, dict) and "id" in item]
