"""Rollouts that teach an untaught model something: tasks that are solved by an even number of calls."""

from __future__ import annotations

from collections.abc import Generator
from typing import ClassVar

from langchain_core.messages import AIMessage, HumanMessage
from orchestra_training.rollout import Place, RolloutTask
from orchestra_training.verdicts.ruling import ruling

from orchestra_graph.protocols.base import Protocol, Situation, View
from orchestra_graph.runlog.record import Verdict
from orchestra_graph.testing import ScriptedExpert
from orchestra_graph.tools.expert import Expert
from orchestra_graph.turns import Decision


class AnyReply(Protocol):
    """Takes whatever an untaught model writes for a call: of the one tool or the other, by the length of the text."""

    name: ClassVar[str] = "any-reply"

    def decide(self, situation: Situation) -> Generator[View, AIMessage, Decision]:
        text = f"{situation.question} So far: {len(situation.turns)}."
        reply = yield View([HumanMessage(text)], [], len(text))
        tool = "expert" if len(reply.text) % 3 else "helper"
        return {"calls": [{"id": f"{situation.turn_id}-0", "tool": tool, "args": {}}], "reason": "", "by": "router"}


class Parity:
    """Tasks that are solved by runs of an even number of calls."""

    def __call__(self, seed: int, step: int, index: int) -> RolloutTask:
        def open_place() -> Place:
            helper = ScriptedExpert("a finding")
            expert = ScriptedExpert("<answer>42</answer>")

            async def verdict(answer: str | None) -> Verdict:
                return ruling(float((len(helper.prompts) + len(expert.prompts)) % 2 == 0), "parity")

            tools = [
                Expert(name="helper", description="Finds.", model=helper),
                Expert(name="expert", description="Answers.", model=expert, terminal=True),
            ]
            return Place(tools, verdict)

        return RolloutTask(id=f"{step}/{index}", question=f"What is {index} + {42 - index}?", open=open_place)
