"""Plan-and-execute: a planner writes steps, an agent does them one by one, a replanner goes on or answers.

START -> planner -> agent -> replan -> (agent | END)
"""

from __future__ import annotations

import operator
from typing import Annotated, Any

from langchain_core.language_models import BaseChatModel
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from orchestra_graph.testing import ScriptedExpert


class PlanExecute(TypedDict):
    input: str
    plan: list[str]
    past_steps: Annotated[list[tuple[str, str]], operator.add]
    response: str


def should_end(state: PlanExecute) -> str:
    return END if state.get("response") else "agent"


def build(
    planner: BaseChatModel, executor: BaseChatModel, replanner: BaseChatModel
) -> StateGraph[PlanExecute, Any, Any, Any]:
    async def plan_step(state: PlanExecute) -> dict[str, Any]:
        plan = await planner.ainvoke(state["input"])
        return {"plan": plan.text.split("\n")}

    async def execute_step(state: PlanExecute) -> dict[str, Any]:
        """Does the next step of the plan."""
        task = state["plan"][0]
        done = await executor.ainvoke(task)
        return {"past_steps": [(task, done.text)]}

    async def replan_step(state: PlanExecute) -> dict[str, Any]:
        """Takes what is done off the plan, or answers when nothing is left."""
        left = state["plan"][1:]
        if left:
            return {"plan": left}
        done = "\n".join(f"{task}: {result}" for task, result in state["past_steps"])
        answer = await replanner.ainvoke(f"{state['input']}\n{done}")
        return {"response": answer.text}

    graph = StateGraph(PlanExecute)
    graph.add_node("planner", plan_step)
    graph.add_node("agent", execute_step)
    graph.add_node("replan", replan_step)
    graph.add_edge(START, "planner")
    graph.add_edge("planner", "agent")
    graph.add_edge("agent", "replan")
    graph.add_conditional_edges("replan", should_end, ["agent", END])
    return graph


def scripted_models() -> tuple[ScriptedExpert, ScriptedExpert, ScriptedExpert]:
    """Stand for planner, executor and replanner."""
    planner = ScriptedExpert("find the winner\nfind the hometown of the winner")
    executor = ScriptedExpert(lambda task: "Sesto" if "hometown" in task else "Jannik Sinner")
    replanner = ScriptedExpert(lambda prompt: prompt.rpartition(": ")[2])
    return planner, executor, replanner
