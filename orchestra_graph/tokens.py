"""Counts and cuts by the tokens of the served model, where a released protocol is defined by them.

A cut lies on a token boundary and never inside a character: where the boundary falls into one, the whole character
goes. Lone surrogates, which no tokenizer takes, are replaced first (`orchestra_graph.text.clean`).

How `FolderTokenizer` gets by without tokenising a whole text. Qwen's tokenizers split a text by a regular expression,
then merge bytes within each piece. Its expression looks behind nowhere, so what follows a boundary between pieces is
split as if the text began there. What precedes it is split as if the text ended there, provided that the last piece
would not have been another one. Both hold at two places, whatever stands around them:

- after a line end, before anything but a blank: no alternative continues from a line end to a character that is no
  blank, and a run of blanks that ends in a line end is one piece (`\\s*[\\r\\n]+`) whether or not something follows;
- after a Latin letter, before one space and a Latin letter: no alternative goes from a letter to a space.

The normaliser (NFC) joins nothing there either: a line end and a space take part in no composition. No added token
holds a blank, so none lies across. So tokens of the segments between such places are the tokens of the whole text, and
a cut is found from the end, segment by segment, with counts kept from turn to turn. A tokenizer that is built otherwise
is given whole texts.
"""

from __future__ import annotations

import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from orchestra_graph.billing import may_pass
from orchestra_graph.errors import ConfigError, MissingError, RouterError
from orchestra_graph.text import clean

QWEN_PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How the tokenizers of Qwen2, Qwen2.5 and Qwen3 split a text; the argument above is made for it."""

_BLOCK: Final = re.compile(r"(?<=\n\n)(?=\S)")
_BREAK: Final = re.compile(r"(?<=\n)(?=\S)|(?<=[A-Za-z])(?= [A-Za-z])")
_SEGMENT: Final = 1_000
"""Characters after which a segment ends at the next place that allows it; it also ends at each empty line."""

_KEPT_CHARACTERS: Final = 4_000_000
"""Bound on the segments of one generation whose counts are kept; there are two generations."""

_SECONDS: Final = 60.0
"""Limit on one request to a server."""


class Tokenizer(ABC):
    """The served model's tokenizer, as far as texts are measured and cut by it."""

    blocks: bool = False
    """Whether a call may wait for a server."""

    @abstractmethod
    def count(self, text: str) -> int:
        """Tokens of a text, without any that open or close a prompt."""

    @abstractmethod
    def last(self, text: str, tokens: int) -> str:
        """The end of a text: its last `tokens` tokens, without a character of which the cut left a part only."""

    @abstractmethod
    def first(self, text: str, tokens: int) -> str:
        """The beginning of a text: its first `tokens` tokens, without a character that the cut went through."""


class FolderTokenizer(Tokenizer):
    """The tokenizer of a model folder; needs the extra `tokenizers`.

    Counts of what was read lately are kept, so that texts that share most of their segments are measured quickly. May
    be used from several threads.

    Args:
        path: The model's folder, or the file `tokenizer.json` in it.

    Raises:
        MissingError: The extra is not installed.
        ConfigError: There is no `tokenizer.json`, or it is none.
    """

    def __init__(self, path: str | Path) -> None:
        file = Path(path)
        if file.is_dir():
            file /= "tokenizer.json"
        self._tokenizer = _load(file)
        self._by_segments = _is_qwen(json.loads(self._tokenizer.to_str()))
        self._new: dict[str, int] = {}
        self._old: dict[str, int] = {}
        self._held = 0

    def count(self, text: str) -> int:
        """See `Tokenizer.count`."""
        return sum(map(self._count, self._segments(clean(text))))

    def last(self, text: str, tokens: int) -> str:
        """See `Tokenizer.last`; reads from the end, as far as the cut."""
        text = clean(text)
        left, end = tokens, len(text)
        for segment in self._segments_from_end(text):
            if left <= 0:
                break
            counted = self._count(segment)
            if counted > left:
                offsets = self._offsets(segment)
                return text[end - len(segment) + _start(offsets, len(offsets) - left, len(segment)) :]
            left -= counted
            end -= len(segment)
        return text[end:]

    def first(self, text: str, tokens: int) -> str:
        """See `Tokenizer.first`; reads from the beginning, as far as the cut."""
        text = clean(text)
        left, end = tokens, 0
        for segment in self._segments(text):
            if left <= 0:
                break
            counted = self._count(segment)
            if counted > left:
                return text[: end + self._offsets(segment)[left][0]]
            left -= counted
            end += len(segment)
        return text[:end]

    def _count(self, segment: str) -> int:
        counted = self._new.get(segment)
        if counted is not None:
            return counted
        counted = self._old.get(segment)
        if counted is None:
            counted = len(self._tokenizer.encode(segment, add_special_tokens=False).ids)
        self._new[segment] = counted
        self._held += len(segment)
        if self._held > _KEPT_CHARACTERS:
            self._old, self._new, self._held = self._new, {}, 0
        return counted

    def _offsets(self, segment: str) -> list[tuple[int, int]]:
        """Where in the segment each token lies; the tokens that make up one character share its place."""
        offsets: list[tuple[int, int]] = self._tokenizer.encode(segment, add_special_tokens=False).offsets
        return offsets

    def _segments(self, text: str) -> Iterator[str]:
        """Parts of a text whose tokens together are the text's."""
        if not self._by_segments:
            yield text
            return
        start = 0
        for end in (*(match.start() for match in _BLOCK.finditer(text)), len(text)):
            yield from _parts(text[start:end])
            start = end

    def _segments_from_end(self, text: str) -> Iterator[str]:
        """The same parts, the last one first; no more of the text is looked at than is asked for."""
        if not self._by_segments:
            yield text
            return
        end = len(text)
        while end:
            start = _block_before(text, end)
            yield from reversed(list(_parts(text[start:end])))
            end = start


class _Tokens(BaseModel):
    tokens: list[int]


class _Text(BaseModel):
    prompt: str


_Reply = TypeVar("_Reply", bound=BaseModel)


class ServerTokenizer(Tokenizer):
    """The tokenizer of a vLLM server, through its routes `/tokenize` and `/detokenize`.

    Each call sends the whole text: use `FolderTokenizer` where the model's folder is at hand. May be used from several
    threads.

    Args:
        base_url: The server's address, as a chat model gets it; a `/v1` at its end is taken off.
        model: Name under which the server has the model.
        api_key: Key, where the server asks for one.
    """

    blocks = True

    def __init__(self, base_url: str, model: str, api_key: str | None = None) -> None:
        self._url = base_url.rstrip("/").removesuffix("/v1")
        self._model = model
        self._key = None if api_key is None else SecretStr(api_key)
        # Connections are not kept: nobody says when the tokenizer is needed no longer.
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(retries=2, limits=httpx.Limits(max_keepalive_connections=0)),
            timeout=_SECONDS,
        )

    def count(self, text: str) -> int:
        """See `Tokenizer.count`.

        Raises:
            RouterError: The server does not answer, or not as vLLM does.
        """
        return len(self._encode(clean(text)))

    def last(self, text: str, tokens: int) -> str:
        """See `Tokenizer.last` and `count`."""
        text = clean(text)
        ids = self._encode(text)
        if len(ids) <= tokens:
            return text
        end = self._decode(ids[len(ids) - tokens :]) if tokens > 0 else ""
        # A character that the cut went through comes back as U+FFFD, once for each token or once for all.
        whole = end.lstrip(_BROKEN)
        for broken in range(len(end) - len(whole) + 1):
            if text.endswith(end[broken:]):
                return end[broken:]
        return whole

    def first(self, text: str, tokens: int) -> str:
        """See `Tokenizer.first` and `count`."""
        text = clean(text)
        ids = self._encode(text)
        if len(ids) <= tokens:
            return text
        beginning = self._decode(ids[:tokens]) if tokens > 0 else ""
        whole = beginning.rstrip(_BROKEN)
        for length in range(len(beginning), len(whole) - 1, -1):
            if text.startswith(beginning[:length]):
                return beginning[:length]
        return whole

    def _encode(self, text: str) -> list[int]:
        return self._post("/tokenize", {"prompt": text, "add_special_tokens": False}, _Tokens).tokens

    def _decode(self, ids: list[int]) -> str:
        return self._post("/detokenize", {"tokens": ids}, _Text).prompt

    def _post(self, route: str, body: dict[str, Any], expected: type[_Reply]) -> _Reply:
        url = f"{self._url}{route}"
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key.get_secret_value()}"}
        try:
            reply = self._sent(url, {"model": self._model, **body}, headers)
            reply.raise_for_status()
            return expected.model_validate_json(reply.content)
        except httpx.HTTPStatusError as error:
            said = " ".join(error.response.text.split())[:200]
            raise RouterError(f"{url} answered {error.response.status_code}: {said or 'nothing'}; {_FIX}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RouterError(f"{url} does not answer ({type(error).__name__}: {error}); {_FIX}") from error
        except ValidationError as error:
            raise RouterError(f"{url} answered {reply.text[:200]!r}; {_FIX}") from error

    def _sent(self, url: str, body: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        """The reply to a request that is sent again where the server is only busy or starts anew."""
        for pause in _PAUSES:
            try:
                reply = self._client.post(url, json=body, headers=headers)
                if not may_pass(reply.status_code):
                    return reply
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                pass  # the last try tells it
            time.sleep(pause)
        return self._client.post(url, json=body, headers=headers)


_PAUSES: Final = (0.2, 1.0)
"""Seconds before the second and the third try."""
_BROKEN: Final = "\ufffd"
_FIX: Final = "expected a vLLM server that has the model; fix: start it, or use FolderTokenizer(model folder)"


def _load(file: Path) -> Any:
    try:
        from tokenizers import Tokenizer as Loaded  # noqa: PLC0415  (optional extra)
    except ImportError as error:
        raise MissingError("the package tokenizers", "pip install tokenizers") from error
    if not file.is_file():
        raise ConfigError(f"{str(file)!r} is not there; expected the folder of a model with its tokenizer.json")
    try:
        loaded = Loaded.from_file(str(file))
    except Exception as error:  # the library raises no narrower type
        raise ConfigError(f"{str(file)!r} is no tokenizer.json: {error}; fix: download the model again") from error
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def _is_qwen(data: dict[str, Any]) -> bool:
    """Whether a tokenizer is built as the module's argument takes it to be."""
    split = {"type": "Split", "pattern": {"Regex": QWEN_PATTERN}, "behavior": "Isolated", "invert": False}
    steps = (data["pre_tokenizer"] or {}).get("pretokenizers", [])
    return (
        (data["normalizer"] or {"type": "NFC"}) == {"type": "NFC"}
        and len(steps) == 2
        and steps[0] == split
        and {**steps[1], "trim_offsets": False}
        == {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
        and data["model"]["type"] == "BPE"
        and not any(
            token["lstrip"] or token["rstrip"] or token["single_word"] or re.search(r"\s", token["content"])
            for token in data["added_tokens"]
        )
    )


def _block_before(text: str, end: int) -> int:
    """The last place before `end` that `_BLOCK` matches, or 0."""
    at = text.rfind("\n\n", 0, end - 1)
    while at >= 0 and text[at + 2].isspace():
        at = text.rfind("\n\n", 0, at + 1)
    return at + 2 if at >= 0 else 0


def _parts(block: str) -> Iterator[str]:
    """A block in parts of a length that is quickly tokenised, as far as it has places to cut it at."""
    start = 0
    while len(block) - start > 2 * _SEGMENT:
        found = _BREAK.search(block, start + _SEGMENT)
        if found is None:
            break
        yield block[start : found.start()]
        start = found.start()
    if start < len(block):
        yield block[start:]


def _start(offsets: list[tuple[int, int]], first: int, length: int) -> int:
    """Where a text begins that keeps the tokens from `first` on, less what is left of a character cut through."""
    while first < len(offsets) and offsets[first][0] < offsets[first - 1][1]:
        first += 1
    return offsets[first][0] if first < len(offsets) else length
