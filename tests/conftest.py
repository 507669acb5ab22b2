"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import ipaddress
import os
import socket
import ssl
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests import examples as examples
from tests.commands import orchestra as orchestra
from tests.openai_server import openai_server as openai_server

os.environ["HF_HUB_OFFLINE"] = (
    "1"  # read once, when the first library of Hugging Face is imported; they report their use
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays to the end: the garbage collector need not look at it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def only_loopback() -> Iterator[None]:
    """Tests reach this machine only: connecting to any other address, or looking one up, fails the test."""
    connect, connect_ex, lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def checked_connect(self: socket.socket, address: Any) -> None:
        _check_socket(self, address)
        connect(self, address)

    def checked_connect_ex(self: socket.socket, address: Any) -> int:
        _check_socket(self, address)
        return connect_ex(self, address)

    def checked_lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        _check(host.decode() if isinstance(host, bytes) else host)
        return lookup(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", checked_connect)
        patch.setattr(socket.socket, "connect_ex", checked_connect_ex)
        patch.setattr(socket, "getaddrinfo", checked_lookup)
        # Every HTTP client would read all authorities that the machine trusts, and no test speaks TLS.
        patch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_args, **_kwargs: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def no_pauses() -> Iterator[None]:
    """A second try comes at once, except where a server says when or a test sets a pause of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestra_graph.attempts.FIRST_PAUSE", 0.0)
        yield


def _check_socket(used: socket.socket, address: Any) -> None:
    if used.family in (socket.AF_INET, socket.AF_INET6):
        _check(address[0])


def _check(host: str | None) -> None:
    if host is None or host in ("", "localhost"):
        return
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        # No ordinary exception: code under test turns those into results.
        pytest.fail(f"a test reached for {host}; tests may reach loopback only")
