"""What a failure means for the bill."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import httpx
import openai
import pytest
from langchain_core.exceptions import ContextOverflowError

from orchestra_graph.billing import describe, is_overflow, is_refusal, is_transient, retry_after, status_of
from orchestra_graph.errors import ToolError

REQUEST: Any = httpx.Request("POST", "http://127.0.0.1/v1/chat/completions")
LIMITED: Any = httpx.Response(429, request=REQUEST)


def answered(status: int, **headers: str) -> httpx.HTTPStatusError:
    response = httpx.Response(status, request=REQUEST, headers={k.replace("_", "-"): v for k, v in headers.items()})
    return httpx.HTTPStatusError(f"status {status}", request=REQUEST, response=response)


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def while_handling(error: BaseException, context: BaseException) -> BaseException:
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    "error",
    [
        answered(400),
        answered(429),
        answered(503),
        openai.RateLimitError("slow down", response=LIMITED, body=None),
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("no route"),
        httpx.PoolTimeout("busy"),
        ConnectionRefusedError(),
        socket.gaierror("unknown host"),
        caused(openai.APIConnectionError(request=REQUEST), httpx.ConnectError("refused")),
        caused(ToolError("down"), answered(500)),
        while_handling(RuntimeError("cannot log it"), ConnectionRefusedError()),
    ],
)
def test_refusals_are_free(error: BaseException) -> None:
    assert is_refusal(error)


@pytest.mark.parametrize(
    "error",
    [
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut off"),
        ConnectionResetError(),
        TimeoutError(),
        asyncio.CancelledError(),
        json.JSONDecodeError("bad", "{", 1),
        ValueError("anything else"),
        answered(302),
        caused(openai.APIConnectionError(request=REQUEST), httpx.ReadError("reset")),
        while_handling(httpx.ReadTimeout("slow"), answered(404)),
        while_handling(httpx.ReadTimeout("slow"), httpx.ConnectError("refused")),
        caused(TimeoutError("no reply within 5 s"), while_handling(asyncio.CancelledError(), answered(404))),
    ],
)
def test_what_broke_after_it_was_sent_may_have_been_billed(error: BaseException) -> None:
    assert not is_refusal(error)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (answered(408), True),
        (answered(409), True),
        (answered(425), True),
        (answered(429), True),
        (answered(500), True),
        (answered(529), True),
        (answered(400), False),
        (answered(401), False),
        (answered(404), False),
        (answered(422), False),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (httpx.ReadTimeout("slow"), True),
        (httpx.RemoteProtocolError("cut off"), True),
        (json.JSONDecodeError("bad", "{", 1), True),
        (httpx.UnsupportedProtocol("gopher://"), False),
        (openai.APIConnectionError(request=REQUEST), True),
        (openai.APITimeoutError(request=REQUEST), True),
        (caused(openai.APIConnectionError(request=REQUEST), httpx.UnsupportedProtocol("gopher://")), True),
        (ToolError("no"), False),
        (ToolError("perhaps", retryable=True), True),
        (caused(ToolError("no"), TimeoutError()), False),
        (caused(ToolError("perhaps", retryable=True), answered(400)), True),
        (caused(RuntimeError("wrapped"), answered(503)), True),
        (ValueError("a bug"), False),
        (asyncio.CancelledError(), False),
    ],
)
def test_what_may_pass_is_sent_again(error: BaseException, again: bool) -> None:
    assert is_transient(error) is again


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("2", 2.0), ("0.5", 0.5), ("-3", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("soon", None)],
)
def test_retry_after_is_read_where_it_is_a_number(value: str, seconds: float | None) -> None:
    assert retry_after(caused(RuntimeError("x"), answered(429, retry_after=value))) == seconds


def test_no_retry_after_is_none() -> None:
    assert retry_after(answered(429)) is None
    assert retry_after(ValueError("x")) is None


def test_a_status_is_read_from_the_error_or_its_response() -> None:
    class Carries(Exception):
        status_code = 418

    assert status_of(Carries()) == 418
    assert status_of(answered(404)) == 404
    assert status_of(answered(302)) is None
    assert status_of(ValueError()) is None


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ToolError("says it all"), "says it all"),
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (TimeoutError(), "TimeoutError"),
        (caused(RuntimeError("outer"), ConnectionRefusedError("nobody listens")), "nobody listens"),
    ],
)
def test_an_error_is_described_in_one_line(error: BaseException, text: str) -> None:
    assert text in describe(error)
    assert "\n" not in describe(error)
    assert describe(error).count(type(error).__name__) <= 1


def test_a_cause_that_is_told_already_is_not_told_again() -> None:
    cause = ValueError("odd")
    assert describe(caused(ToolError("the reply is ValueError: odd"), cause)) == "the reply is ValueError: odd"


def test_a_cycle_of_causes_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert "first" in describe(first)
    assert not is_refusal(first)
    assert not is_transient(first)


def test_a_prompt_that_is_too_long_is_told_from_other_refusals() -> None:
    refused: Any = httpx.Response(400, request=REQUEST)
    text = "Error code: 400 - This model's maximum context length is 64 tokens. However, you requested 8 output tokens"
    vllm = openai.BadRequestError(text, response=refused, body=None)
    assert is_overflow(caused(ToolError("refused"), vllm))
    assert is_overflow(ContextOverflowError("too long"))
    assert not is_overflow(answered(400))
