"""Rollouts in several processes: the graph's own work takes a core, and one process has one.

The model stays with the trainer. A worker runs graphs, tools and verdicts, and asks for each reply over a pipe; the
requests of all workers are computed together. Workers are started once and hold no weights.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import multiprocessing
import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

from langchain_core.exceptions import ContextOverflowError

from orchestra_graph.errors import OrchestraError
from orchestra_graph.runlog.record import Policy, Trajectory
from orchestra_graph.served import VLLM_SAMPLING, Served
from orchestra_graph.vllm import ChatVLLM
from orchestra_training.exploration import Exploring
from orchestra_training.rollout.calling import CallingRouter
from orchestra_training.rollout.run import Actor, Rollouts
from orchestra_training.rollout.task import find_protocol, find_tasks

AT_A_TIME: Final = 2
"""Parts of groups that a worker has under way."""
PARTS_A_WORKER: Final = 4
"""In how many parts, about, a batch is cut for each worker: the last ones to end keep the others waiting."""

Ask = tuple[int, list[int], int, float, bool]
"""Number, prompt, most tokens, temperature, whether it is explored."""
Reply = tuple[list[int], list[float]]
"""Tokens and their logprobs."""


class RolloutError(OrchestraError):
    """Rollouts cannot go on."""


@dataclass(frozen=True, kw_only=True)
class Outfit:
    """What a process needs to carry out rollouts; can be pickled."""

    tasks: str
    """As for `find_tasks`, with its options."""
    options: dict[str, Any] = field(default_factory=dict)
    protocol: str
    """As for `find_protocol`."""
    seed: int = 0
    session: str = ""
    """As for `Rollouts`."""
    size: int = 16
    explorers: int = 0
    concurrent: int = 1024
    max_malformed: int = 1
    name: str = "policy"
    max_tokens: int = 512
    temperature: float = 1.0
    tokenizer: str = ""
    """JSON of a `tokenizers.Tokenizer`."""
    tokenizer_name: str | None = None
    """Its folder, or name on the Hugging Face hub, for the run log."""
    chat_template: str = ""
    base_url: str | None = None
    """A vLLM server that decides in place of the trainer's model. It must sample from, and tell the logprobs of, the
    plain distribution, as one that `orchestra serve` started does."""
    model: str = ""
    """What that server calls the model."""

    def rollouts(self) -> Rollouts:
        """Where rollouts come from."""
        tasks = find_tasks(self.tasks, self.options)
        return Rollouts(
            tasks=tasks,
            seed=self.seed,
            session=self.session,
            size=self.size,
            explorers=self.explorers,
            concurrent=self.concurrent,
        )

    def actor(self, engine: Exploring | None) -> Actor:
        """Who decides, before it is known with which weights."""
        protocol = find_protocol(self.protocol)
        policy = Policy(name=self.name)
        if self.base_url is not None:
            chat = ChatVLLM(
                model=self.model,
                base_url=self.base_url,
                temperature=self.temperature,
                max_tokens=self.max_tokens,
                served=Served(
                    tokenizer=self.tokenizer_name,
                    template_hash=hashlib.sha256(self.chat_template.encode()).hexdigest(),
                    logprobs_mode="processed_logprobs",
                    sampling=dict(VLLM_SAMPLING),
                ),
            )
            return Actor(router=chat, protocol=protocol, policy=policy, max_malformed=self.max_malformed)
        from tokenizers import Tokenizer  # noqa: PLC0415  (an extra)

        router = CallingRouter(
            engine=engine,
            tokenizer=Tokenizer.from_str(self.tokenizer),
            tokenizer_name=self.tokenizer_name,
            chat_template=self.chat_template,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            name=self.name,
        )
        return Actor(router=router, protocol=protocol, policy=policy, max_malformed=self.max_malformed)


class Workers:
    """Processes that carry out rollouts.

    Args:
        outfit: What each of them needs.
        engine: Computes their replies.
        count: How many.
    """

    def __init__(self, outfit: Outfit, engine: Exploring | None, count: int) -> None:
        self._outfit = outfit
        self._engine = engine
        spawn = multiprocessing.get_context("spawn")  # a fork would share the threads of torch
        self._links: list[_Link] = []
        for _ in range(count):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_work, args=(theirs, outfit), daemon=True)
            process.start()
            theirs.close()
            self._links.append(_Link(ours, process))

    async def batch(self, policy: Policy, step: int, indexes: Sequence[int]) -> list[Trajectory]:
        """The rollouts of a step, as `Rollouts.batch` gives them.

        Raises:
            RolloutError: A worker ended; the others are ended, too.
        """
        left = deque(self._parts(indexes))
        found: dict[tuple[int, int], list[Trajectory]] = {}

        async def keep_busy(link: _Link) -> None:
            async def one_by_one() -> None:
                while left:
                    index, places = left.popleft()
                    found[index, places[0]] = await link.group(policy, step, index, places)

            await asyncio.gather(*(one_by_one() for _ in range(AT_A_TIME)))

        for link in self._links:
            link.attach(self._engine)
        try:
            try:
                await asyncio.gather(*map(keep_busy, self._links))
            finally:
                for link in self._links:
                    link.detach()
        except BaseException:
            self.close()  # one that waits for somebody to read would keep this process from its end
            raise
        return [run for index in indexes for key in sorted(found) if key[0] == index for run in found[key]]

    def close(self) -> None:
        """End the processes."""
        for link in self._links:
            link.close()

    def _parts(self, indexes: Sequence[int]) -> list[tuple[int, range]]:
        size = self._outfit.size + self._outfit.explorers
        part = max(1, len(indexes) * size // (PARTS_A_WORKER * len(self._links)))
        return [(index, range(n, min(n + part, size))) for index in indexes for n in range(0, size, part)]


class _Link:
    """The trainer's end of a worker's pipe."""

    def __init__(self, pipe: Any, process: Any) -> None:
        self._pipe = pipe
        self._process = process
        self._waiting: dict[tuple[int, int], asyncio.Future[list[Trajectory]]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._engine: Exploring | None = None
        self._sending: asyncio.Lock | None = None
        """Of the loop that listens."""

    def attach(self, engine: Exploring | None) -> None:
        """Listen in this event loop."""
        self._engine = engine
        self._sending = asyncio.Lock()
        asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._read)

    def detach(self) -> None:
        """Listen no more."""
        asyncio.get_running_loop().remove_reader(self._pipe.fileno())

    async def group(self, policy: Policy, step: int, index: int, places: range) -> list[Trajectory]:
        """A part of a group."""
        done: asyncio.Future[list[Trajectory]] = asyncio.get_running_loop().create_future()
        self._waiting[index, places[0]] = done
        try:
            await self._send(("group", policy, step, index, places))
        except OSError:
            self._gone()
        return await done

    async def _send(self, message: Any) -> None:
        """Send beside the loop: while both ends wait for the other one to read, one must."""
        assert self._sending is not None
        async with self._sending:
            await asyncio.to_thread(self._pipe.send, message)

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()
        self._pipe.close()

    def _read(self) -> None:
        try:
            while self._pipe.poll():
                kind, *what = self._pipe.recv()
                if kind == "ask":
                    task = asyncio.create_task(self._answer(what[0]))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
                else:
                    index, first, runs, error = what
                    done = self._waiting.pop((index, first))
                    done.set_exception(RolloutError(error)) if error else done.set_result(runs)
        except (EOFError, OSError):
            self._gone()

    async def _answer(self, asks: Sequence[Ask]) -> None:
        """Compute replies and send them back; those of one message come back in one."""
        assert self._engine is not None
        complete = self._engine.complete
        replies = await asyncio.gather(
            *(
                complete(prompt, max_tokens=most, temperature=warmth, explore=explore)
                for _, prompt, most, warmth, explore in asks
            ),
            return_exceptions=True,
        )
        told = [(ask[0], _sendable(reply)) for ask, reply in zip(asks, replies, strict=True)]
        try:
            await self._send(("replies", told))
        except OSError:
            self._gone()

    def _gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pipe.fileno())
        self._process.join(5)
        why = f"a rollout worker ended with exit code {self._process.exitcode}; what it wrote to stderr says why"
        for done in self._waiting.values():
            if not done.done():
                done.set_exception(RolloutError(why))
        self._waiting.clear()


def _sendable(reply: Reply | BaseException) -> Reply | Exception:
    """A reply or why there is none; not every exception can be pickled."""
    if isinstance(reply, BaseException) and not isinstance(reply, ContextOverflowError):
        return RuntimeError(f"the trainer's model failed: {reply!r}")
    return reply


def _work(pipe: Connection, outfit: Outfit) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer ends its workers
    try:
        asyncio.run(_Worker(pipe, outfit).live())
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the trainer is gone
        return


class _Worker:
    """The other end, with an `Engine` that asks over the pipe."""

    def __init__(self, pipe: Connection, outfit: Outfit) -> None:
        self._pipe = pipe
        self._rollouts = outfit.rollouts()
        self._actor = outfit.actor(self)
        self._numbers = itertools.count()
        self._asks: list[Ask] = []
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._groups: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[None] | None = None
        gc.freeze()  # what was imported need not be looked through again and again

    async def live(self) -> None:
        """Do what the trainer says until it is gone."""
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        loop.add_reader(self._pipe.fileno(), self._read)
        await self._ended

    async def complete(
        self, prompt: Sequence[int], *, max_tokens: int, temperature: float, explore: bool = False
    ) -> Reply:
        """Ask the trainer's model; what is asked in one pass of the loop goes as one message."""
        number = next(self._numbers)
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        self._replies[number] = reply
        if not self._asks:
            loop.call_soon(self._send)
        self._asks.append((number, list(prompt), max_tokens, temperature, explore))
        return await reply

    def _send(self) -> None:
        asks, self._asks = self._asks, []
        self._pipe.send(("ask", asks))

    def _read(self) -> None:
        try:
            while self._pipe.poll():
                kind, *what = self._pipe.recv()
                if kind == "group":
                    task = asyncio.create_task(self._group(*what))
                    self._groups.add(task)
                    task.add_done_callback(self._groups.discard)
                else:
                    self._take(what[0])
        except (EOFError, OSError) as error:
            if self._ended is not None and not self._ended.done():
                self._ended.set_exception(error)

    def _take(self, told: Sequence[tuple[int, Reply | Exception]]) -> None:
        for number, reply in told:
            waiting = self._replies.pop(number)
            if waiting.done():  # its rollout was given up
                continue
            if isinstance(reply, Exception):
                waiting.set_exception(reply)
            else:
                waiting.set_result(reply)

    async def _group(self, policy: Policy, step: int, index: int, places: range) -> None:
        try:
            runs = await self._rollouts.group(self._actor.having(policy), step, index, places)
        except Exception as error:  # told to the trainer, which stops
            self._pipe.send(("done", index, places[0], [], f"{type(error).__name__}: {error}"))
        else:
            self._pipe.send(("done", index, places[0], runs, None))
