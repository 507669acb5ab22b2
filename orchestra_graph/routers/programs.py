"""The three plainest routers: always the same tool, the cheapest one, any one."""

from __future__ import annotations

import random

from orchestra_graph.protocols.reply import FINAL_ANSWER
from orchestra_graph.protocols.table import Line
from orchestra_graph.routers.base import Choice, ProgramRouter, Scene


class Fixed(ProgramRouter):
    """Calls one tool, whatever the question; when it does not end the run, calls it once more and then gives up.

    Where no tool ends the run, its result has answered.
    """

    tool: str
    """Name of the tool."""
    before: tuple[str, ...] = ()
    """Tools called once each before it, for example a search."""

    def choose(self, scene: Scene) -> Choice:
        """The tools in `before`, then `tool`, at most twice."""
        done = len(scene.past)
        if done < len(self.before):
            return Choice(self.before[done], f"first {self.before[done]}")
        if done < len(self.before) + 2 and not (done > len(self.before) and is_answered(scene)):
            return Choice(self.tool, f"always {self.tool}")
        return give_up(scene)


class Cheapest(ProgramRouter):
    """Calls the cheapest tool that ends the run, then the next cheapest, until one answers.

    Where no tool ends the run, the first that brings a result has answered.
    """

    def choose(self, scene: Scene) -> Choice:
        """The cheapest terminal tool that has not been called yet."""
        called = {past.tool for past in scene.past}
        left = [line for line in enders(scene) if line.name not in called]
        if not left or is_answered(scene):
            return give_up(scene)
        line = min(left, key=Line.dollars)
        return Choice(line.name, f"{line.name} is the cheapest that has not been asked")


class Random(ProgramRouter):
    """Calls any tool with equal chance. The same seed and question give the same calls."""

    seed: int = 0

    def choose(self, scene: Scene) -> Choice:
        """One of all tools; after 12 calls it gives up."""
        lines = candidates(scene)
        if len(scene.past) >= 12 or not lines:
            return give_up(scene)
        draw = random.Random(f"{self.seed}:{len(scene.past)}:{scene.question}")
        return Choice(draw.choice(lines).name, "drawn at random")


def candidates(scene: Scene) -> list[Line]:
    """Tools that a program can call: it knows no argument but the question, and answers by itself only to give up."""
    return [line for line in scene.lines if line.textual and line.name != FINAL_ANSWER]


def enders(scene: Scene) -> list[Line]:
    """Tools whose answer ends the run; all of them where none is marked."""
    lines = candidates(scene)
    return [line for line in lines if line.terminal] or lines


def is_answered(scene: Scene) -> bool:
    """Whether the newest result has to do as the answer: no tool of this catalog ends a run."""
    return bool(scene.past) and not scene.past[-1].error and not any(line.terminal for line in candidates(scene))


def give_up(scene: Scene) -> Choice:
    """Answer with the newest result, by the final-answer tool or in words."""
    results = [past.content for past in scene.past if not past.error]
    text = results[-1] if results else "No tool brought an answer."
    if any(line.name == FINAL_ANSWER for line in scene.lines):
        return Choice(FINAL_ANSWER, "nothing is left to try", {"answer": text})
    return Choice(None, text)
