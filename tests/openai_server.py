"""A real HTTP server on loopback that speaks the chat-completions API and fails on demand.

A script says what each request gets: a `Reply` (which may break while it is sent), a `Refusal`, or `Silence`. The
server records every request and what it billed, so that a test can hold a ledger against it. With `vllm=True` it
answers token ids and logprobs as vLLM does when it is asked; a token is a byte of UTF-8.

    def test_it(openai_server: OpenAIServer) -> None:
        openai_server.script = [Refusal(429, retry_after=0.1), Reply("hello")]
        model = ChatOpenAI(model="m", base_url=openai_server.base_url, api_key="k")

Left out: TLS, keep-alive (each connection serves one request, so that clients leave no socket open behind them).
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

Body = dict[str, Any]


@dataclass(frozen=True)
class Usage:
    """Tokens that a request is billed for."""

    prompt: int
    completion: int
    cached: int = 0


@dataclass(frozen=True)
class Reply:
    """A completion. It is billed, whatever becomes of it on the way."""

    content: str = ""
    calls: Sequence[tuple[str, Body | str]] = ()
    """Tool name and arguments; a string goes out as it stands, for arguments that are no JSON."""
    reasoning: str | None = None
    reasoning_key: Literal["reasoning", "reasoning_content"] = "reasoning"
    usage: Usage | None = None
    """Counted in tokens of the reply where None."""
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    choices: bool | None = True
    """False sends an empty list of choices, None sends null in its place."""
    fault: Literal["reset", "truncated", "drip"] | None = None
    """`reset` breaks the connection (RST) half way, `truncated` ends a JSON text half way under a right Content-Length,
    `drip` sends a byte every 20 ms."""
    delay: float = 0.0
    """Seconds before the first byte."""


@dataclass(frozen=True)
class Refusal:
    """An HTTP error with the error body of the OpenAI API; nothing is billed."""

    status: int
    message: str = "refused by the script"
    retry_after: float | None = None
    code: int | str | None = None
    """Of the error itself; the status where None. A gateway states it below status 200."""


@dataclass(frozen=True)
class Silence:
    """No byte of an answer: the server waits, then closes."""

    seconds: float = 3600.0
    billed: Usage | None = None
    """What the work that nobody hears of costs."""


Answer = Reply | Refusal | Silence


@dataclass(frozen=True)
class Recorded:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: Body


@dataclass
class OpenAIServer:
    """The server; use it as a context manager.

    `script` is a sequence, one answer a request with the last one repeated, or a function of the request's body.
    """

    script: Sequence[Answer] | Callable[[Body], Answer] = (Reply("ok"),)
    vllm: bool = False
    requests: list[Recorded] = field(default_factory=list)
    billed: list[Usage] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> OpenAIServer:
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai-server")
        self._thread.start()
        listening = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2048)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        self._port: int = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client hung up: cancelled calls do that
        except asyncio.CancelledError:
            writer.transport.abort()  # the test is over
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read(reader)
        self.requests.append(request)
        answer = self._next(request.body)
        if isinstance(answer, Silence):
            if answer.billed:
                self.billed.append(answer.billed)
            await _until_closed(reader, answer.seconds)
        elif isinstance(answer, Refusal):
            await _send(writer, answer.status, json.dumps(_error(answer)), retry_after=answer.retry_after)
        else:
            completion = _Completion(answer, request.body, self.vllm)
            self.billed.append(completion.usage)
            await asyncio.sleep(answer.delay)
            await _send_completion(writer, completion)

    def _next(self, body: Body) -> Answer:
        if callable(self.script):
            return self.script(body)
        return self.script[min(len(self.requests), len(self.script)) - 1]


@pytest.fixture
def openai_server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


def closed_url() -> str:
    """Address at which nothing listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}/v1"


def tokens(text: str) -> list[int]:
    """The server's tokenizer: bytes of UTF-8."""
    return list(text.encode())


def logprobs(token_ids: Sequence[int]) -> list[float]:
    """What the server says of a completion's tokens."""
    return [-t / 1000 for t in token_ids]


@dataclass(frozen=True)
class _Completion:
    """A reply in the API's words."""

    reply: Reply
    request: Body
    vllm: bool

    @property
    def prompt_ids(self) -> list[int]:
        return tokens(json.dumps(self.request["messages"]))

    @property
    def token_ids(self) -> list[int]:
        calls = "".join(f"{name}{_text(args)}" for name, args in self.reply.calls)
        return tokens((self.reply.reasoning or "") + self.reply.content + calls)

    @property
    def usage(self) -> Usage:
        return self.reply.usage or Usage(len(self.prompt_ids), len(self.token_ids))

    @property
    def streamed(self) -> bool:
        return bool(self.request.get("stream"))

    def whole(self) -> Body:
        choice = {"index": 0, "message": {"role": "assistant", **self._message()}, **self._ending()}
        choice |= self._tokens(self.token_ids)
        body = {**self._head("chat.completion"), "choices": self._choices(choice), "usage": self._usage()}
        return body | self._prompt()

    def _choices(self, choice: Body) -> list[Body] | None:
        return None if self.reply.choices is None else [choice] * self.reply.choices

    def chunks(self) -> Iterator[Body]:
        """One chunk with the role, one a part, the ending; usage at last when it is asked for."""
        head = self._head("chat.completion.chunk")
        if self.reply.choices:
            opening = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            yield {**head, "choices": [opening]} | self._prompt()
            for delta, text in self._parts():
                yield {**head, "choices": [{"index": 0, "delta": delta, **self._tokens(tokens(text))}]}
            yield {**head, "choices": [{"index": 0, "delta": {}, **self._ending()}]}
        if self.request.get("stream_options", {}).get("include_usage"):
            yield {**head, "choices": [], "usage": self._usage()}

    def _head(self, kind: str) -> Body:
        return {"id": "chatcmpl-1", "object": kind, "created": 0, "model": self.request["model"]}

    def _message(self) -> Body:
        message: Body = {"content": self.reply.content or (None if self.reply.calls else "")}
        if self.reply.reasoning is not None:
            message[self.reply.reasoning_key] = self.reply.reasoning
        if self.reply.calls:
            message["tool_calls"] = [_call(i, *call) for i, call in enumerate(self.reply.calls)]
        return message

    def _parts(self) -> Iterator[tuple[Body, str]]:
        """Deltas with their tokens' text: reasoning and content in halves, then each call's name and arguments."""
        for half in _halves(self.reply.reasoning or ""):
            yield {self.reply.reasoning_key: half}, half
        for half in _halves(self.reply.content):
            yield {"content": half}, half
        for i, (name, args) in enumerate(self.reply.calls):
            yield {"tool_calls": [{"index": i, **_call(i, name, "")}]}, name
            yield {"tool_calls": [{"index": i, "function": {"arguments": _text(args)}}]}, _text(args)

    def _ending(self) -> Body:
        ending: Body = {"finish_reason": self.reply.finish_reason or ("tool_calls" if self.reply.calls else "stop")}
        return ending | ({"stop_reason": self.reply.stop_reason} if self.vllm else {})

    def _prompt(self) -> Body:
        return {"prompt_token_ids": self.prompt_ids} if self.vllm and self.request.get("return_token_ids") else {}

    def _tokens(self, token_ids: list[int]) -> Body:
        found: Body = {}
        if self.vllm and self.request.get("return_token_ids"):
            found["token_ids"] = token_ids
        if self.vllm and self.request.get("logprobs"):
            found["logprobs"] = {
                "content": [
                    {"token": chr(t), "bytes": [t], "logprob": p, "top_logprobs": []}
                    for t, p in zip(token_ids, logprobs(token_ids), strict=True)
                ]
            }
        return found

    def _usage(self) -> Body:
        return {
            "prompt_tokens": self.usage.prompt,
            "completion_tokens": self.usage.completion,
            "total_tokens": self.usage.prompt + self.usage.completion,
            "prompt_tokens_details": {"cached_tokens": self.usage.cached},
        }


def _text(args: Body | str) -> str:
    return args if isinstance(args, str) else json.dumps(args)


def _halves(text: str) -> Iterator[str]:
    middle = len(text) // 2
    yield from filter(None, (text[:middle], text[middle:]))


def _call(i: int, name: str, args: Body | str) -> Body:
    return {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": _text(args)}}


def _error(refusal: Refusal) -> Body:
    return {
        "error": {
            "message": refusal.message,
            "type": "scripted",
            "param": None,
            "code": refusal.code or str(refusal.status),
        }
    }


async def _read(reader: asyncio.StreamReader) -> Recorded:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Recorded(method, path, headers, json.loads(body) if body else {})


async def _until_closed(reader: asyncio.StreamReader, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await reader.read()
    except TimeoutError:
        pass


async def _send(writer: asyncio.StreamWriter, status: int, body: str, *, retry_after: float | None = None) -> None:
    extra = "" if retry_after is None else f"Retry-After: {retry_after:g}\r\n"
    writer.write(_head(status, "application/json", f"{extra}Content-Length: {len(body.encode())}\r\n") + body.encode())
    await writer.drain()


async def _send_completion(writer: asyncio.StreamWriter, completion: _Completion) -> None:
    fault = completion.reply.fault
    kind, body = _body(completion)
    if fault == "truncated":
        body = body[: len(body) // 2]
    length = "" if completion.streamed else f"Content-Length: {len(body)}\r\n"
    writer.write(_head(200, kind, length))
    async for part in _pieces(body, fault):
        writer.write(part)
        await writer.drain()
    if fault == "reset":
        await asyncio.sleep(0.02)  # the client has read the first half
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _body(completion: _Completion) -> tuple[str, bytes]:
    if not completion.streamed:
        return "application/json", json.dumps(completion.whole()).encode()
    events = [*(json.dumps(chunk) for chunk in completion.chunks()), "[DONE]"]
    return "text/event-stream", "".join(f"data: {event}\n\n" for event in events).encode()


async def _pieces(body: bytes, fault: str | None) -> AsyncIterator[bytes]:
    if fault == "drip":
        for i in range(len(body)):
            yield body[i : i + 1]
            await asyncio.sleep(0.02)
    else:
        yield body[: len(body) // 2] if fault == "reset" else body


def _head(status: int, kind: str, extra: str) -> bytes:
    return f"HTTP/1.1 {status} Scripted\r\nContent-Type: {kind}\r\nConnection: close\r\n{extra}\r\n".encode()
