"""The session with one MCP server: opened when it is first needed, opened again after a crash, in a thread of its own.

The thread makes it independent of the loops that its calls come from: a graph may be run by several, one after the
other, and a session that rests on the loop of the first would be gone with it. What a request meets is told apart by
whether the server can have looked at it: what was not sent goes out again on a new session, what may have been carried
out does not.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, TypeVar

from orchestra_graph.billing import describe, is_refusal, is_transient
from orchestra_graph.errors import ToolError
from orchestra_graph.redact import hide_secrets

if TYPE_CHECKING:
    from mcp import ClientSession

T = TypeVar("T")

OPENING_SECONDS: Final = 30.0
"""In which a server must have started and introduced itself."""
PING_SECONDS: Final = 2.0
"""After which a server that is still busy with a call over HTTP is asked whether it lives: SDK version 1 does not tell
when the stream breaks off in which the answer was to come."""
_CLOSING_SECONDS: Final = 10.0

_CONNECTION_CLOSED: Final = -32000
_SESSION_TERMINATED: Final = 32600
"""What the SDK says when the server knows the session no longer (HTTP 404): it has not looked at the request."""


class McpSession:
    """See above. One task holds the session open from beginning to end; requests are tasks beside it.

    Args:
        name: What errors call the server.
        connection: As `langchain_mcp_adapters` takes it.
    """

    def __init__(self, name: str, connection: dict[str, Any]) -> None:
        self._name = name
        self._connection = connection
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._holder: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[ClientSession] | None = None
        self._leave = asyncio.Event()
        self._why: BaseException | None = None
        """What broke the session."""
        self._in_flight = 0

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the session's thread."""
        with self._lock:
            if self._is_closed:
                coroutine.close()
                raise ToolError(f"the MCP server {self._name} is closed")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name=f"mcp-{self._name}", daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Leave the session and end the thread; nothing can be called afterwards."""
        with self._lock:
            loop, thread, self._loop, self._is_closed = self._loop, self._thread, None, True
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(lambda: loop.create_task(self._stop(loop)))
        if thread is not threading.current_thread():  # the garbage collector may run in it
            thread.join(_CLOSING_SECONDS)
            if not thread.is_alive():
                loop.close()

    async def _stop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._leave.set()
        if self._holder is not None:
            await asyncio.wait([self._holder], timeout=_CLOSING_SECONDS / 2)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # requests under way are about to say that the server is gone
            _, others = await asyncio.wait(others, timeout=_CLOSING_SECONDS / 8)
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=_CLOSING_SECONDS / 8)
        loop.stop()

    async def call(self, name: str, args: dict[str, Any]) -> Any:
        """Call a tool, from any loop.

        Raises:
            ToolError: See `McpTool.run`.
        """
        return await asyncio.wrap_future(self.run(self.ask(lambda session: _call_tool(session, name, args))))

    async def ask(self, request: Callable[[ClientSession], Awaitable[T]]) -> T:
        """Make a request, in the session's thread; once more where it was not sent because the session was gone.

        Raises:
            ToolError: The server cannot be reached, refused the request, or died under it.
        """
        session, is_new = await self._opened()
        try:
            return await self._answer(session, request)
        except _UnsentError as error:
            if is_new:
                raise self._unreachable(error.why) from ConnectionRefusedError()
        session, _ = await self._opened()
        try:
            return await self._answer(session, request)
        except _UnsentError as error:
            raise self._unreachable(error.why) from ConnectionRefusedError()

    async def _answer(self, session: ClientSession, request: Callable[[ClientSession], Awaitable[T]]) -> T:
        """What the server answers, unless the session ends before.

        Raises:
            ToolError: The server refused the request or died under it.
            _UnsentError: The session is gone, and the server has not looked at the request.
        """
        self._in_flight += 1
        answer = asyncio.ensure_future(request(session))
        try:
            pinged = await self._wait(session, answer)
            if answer.done():
                return answer.result()
            why = self._why
            if why is not None and is_refusal(why) and self._in_flight == 1 and not pinged:
                raise _UnsentError(why)  # it broke the session
            raise self._died(why)
        except _errors("McpError") as error:
            code = error.error.code  # type: ignore[attr-defined]
            if code == _SESSION_TERMINATED:
                await self._end()
                raise _UnsentError(error) from error
            if code == _CONNECTION_CLOSED:
                await self._end()
                raise self._died(error) from None
            raise ToolError(hide_secrets(str(error))) from error
        except _errors("ClosedResourceError", "BrokenResourceError") as error:
            await self._end()
            raise _UnsentError(error) from error
        finally:
            self._in_flight -= 1
            answer.cancel()
            await asyncio.wait([answer])

    async def _wait(self, session: ClientSession, answer: asyncio.Future[Any]) -> bool:
        """Wait until there is an answer or the session has ended; says whether the server was asked if it lives."""
        assert self._holder is not None
        pings = 0
        ping: asyncio.Future[Any] | None = None
        try:
            while not answer.done() and not self._holder.done():
                waiting = {answer, self._holder} | ({ping} if ping else set())
                timeout = PING_SECONDS if ping is None and "url" in self._connection else None
                done, _ = await asyncio.wait(waiting, timeout=timeout, return_when="FIRST_COMPLETED")
                if ping is not None and ping in done:
                    if _is_gone(ping):
                        await self._end()
                    ping = None
                elif not done:
                    pings, ping = pings + 1, asyncio.ensure_future(session.send_ping())
        finally:
            if ping is not None:
                ping.cancel()
                await asyncio.wait([ping])
        return pings > 0

    async def _opened(self) -> tuple[ClientSession, bool]:
        """The session, and whether it was opened now.

        Raises:
            ToolError: The server cannot be reached.
        """
        loop = asyncio.get_running_loop()
        is_new = self._holder is None or self._holder.done()
        if is_new:
            self._leave, self._ready, self._why = asyncio.Event(), loop.create_future(), None
            # Nothing of the call that happens to open it, a trace for example, belongs to the session.
            self._holder = loop.create_task(self._hold(self._ready), context=contextvars.Context())
        assert self._ready is not None
        try:
            return await asyncio.shield(self._ready), is_new
        except Exception as error:
            raise self._unreachable(error) from (error if is_refusal(error) else ConnectionRefusedError())

    async def _hold(self, ready: asyncio.Future[ClientSession]) -> None:
        """Open the session and keep it until it is left, or breaks; what broke it is told to those who wait."""
        from langchain_mcp_adapters.sessions import create_session  # noqa: PLC0415  (the extra `mcp`)

        try:
            async with create_session(self._connection) as session:  # type: ignore[arg-type]
                async with asyncio.timeout(OPENING_SECONDS):
                    await session.initialize()
                ready.set_result(session)
                await self._leave.wait()
        except BaseException as error:
            self._why = _first(error)
        if not ready.done():
            ready.set_exception(self._why if isinstance(self._why, Exception) else ConnectionError("cancelled"))
            ready.exception()  # the caller may be gone

    async def _end(self) -> None:
        """Leave a session that is of no use any more, so that the next request opens one."""
        self._leave.set()
        if self._holder is not None:
            await asyncio.wait([self._holder])

    def _unreachable(self, why: BaseException) -> ToolError:
        text = f"the MCP server {self._name} cannot be reached: {describe(why)}"
        return ToolError(text, retryable=is_transient(why))

    def _died(self, why: BaseException | None) -> ToolError:
        because = f": {describe(why)}" if why is not None else ""
        return ToolError(f"the MCP server {self._name} died during the call, which may have been carried out{because}")


class _UnsentError(Exception):
    """The server has not looked at a request."""

    def __init__(self, why: BaseException) -> None:
        super().__init__(str(why))
        self.why = why


async def _call_tool(session: ClientSession, name: str, args: dict[str, Any]) -> Any:
    """The result, with sound as a file: the adapters know no other form for it."""
    from mcp.types import AudioContent, BlobResourceContents, EmbeddedResource  # noqa: PLC0415  (the extra `mcp`)

    result = await session.call_tool(name, args)
    content: list[Any] = []
    for block in result.content:
        if isinstance(block, AudioContent):
            blob = BlobResourceContents.model_validate(
                {"uri": "audio:content", "mimeType": block.mimeType, "blob": block.data}
            )
            content.append(EmbeddedResource(type="resource", resource=blob))
        else:
            content.append(block)
    return result.model_copy(update={"content": content})


def _first(error: BaseException) -> BaseException:
    """The first failure of those that a group holds."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _is_gone(ping: asyncio.Future[Any]) -> bool:
    """Whether the answer to a ping shows that the server knows the session no longer."""
    error = ping.exception()
    return isinstance(error, _errors("McpError")) and error.error.code in (_SESSION_TERMINATED, _CONNECTION_CLOSED)  # type: ignore[attr-defined]


def _errors(*names: str) -> tuple[type[Exception], ...]:
    """Exception classes of the SDK and of what it rests on."""
    import anyio  # noqa: PLC0415  (a requirement of the extra `mcp`)
    import mcp  # noqa: PLC0415  (the extra `mcp`)

    return tuple(getattr(mcp, name, None) or getattr(anyio, name) for name in names)
