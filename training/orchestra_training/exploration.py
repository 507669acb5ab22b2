"""Explorers: rollouts beside a group, each of which writes one word that the policy would hardly have written.

A policy that is nearly sure of every word never tries another one, and learns nothing of what it would have brought;
at a higher temperature it tries many at a time, and learns to forgive them. The explorer k of a task follows the policy
but for its reply k, counted from 0, which begins with the likeliest token but one.

What is learnt of them is in `orchestra_training.batch.make_explored`. A policy gradient cannot: its step is in
proportion to a word's probability, and that is next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Final
from typing import Protocol as Interface

from orchestra_graph.runlog.record import Trajectory

EXPLORES: Final = "explores"
"""Field of a run's task: the number of the reply that was explored."""


class Exploring(Interface):
    """An `orchestra_graph.routers.local.Engine` that can write something else."""

    async def complete(
        self, prompt: Sequence[int], *, max_tokens: int, temperature: float, explore: bool = False
    ) -> tuple[list[int], list[float]]:
        """Continue a prompt; with `explore` the first token is the likeliest but one."""


class Explorer:
    """The engine of one rollout, an `Engine`, which explores one reply.

    Args:
        engine: Computes the replies.
        reply: Number of the reply that is explored.
    """

    def __init__(self, engine: Exploring, reply: int) -> None:
        self._engine = engine
        self._reply = reply
        self._numbers = count()

    async def complete(
        self, prompt: Sequence[int], *, max_tokens: int, temperature: float
    ) -> tuple[list[int], list[float]]:
        """Continue a prompt."""
        explore = next(self._numbers) == self._reply
        return await self._engine.complete(prompt, max_tokens=max_tokens, temperature=temperature, explore=explore)


def explores(run: Trajectory) -> bool:
    """Whether a run is an explorer's."""
    return EXPLORES in (run.task.model_extra or {})
