"""What can be a tool of the graph, and what comes back from it."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import pytest
from langchain.tools import ToolRuntime
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, ToolException, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, InjectedStore
from langgraph.types import Command

from orchestra_graph.errors import ConfigError, ToolError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.adapt import LangChainTool, ToolLike, as_tool
from orchestra_graph.tools.base import Request, Result
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.subgraph import Subgraph


async def call(value: ToolLike, **args: Any) -> Result:
    return await as_tool(value).run(Request(args=args, question="q", call_id="c-1"))


def add(a: int, b: int = 2) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


async def add_later(a: int) -> str:
    """Add, later."""
    return str(a + 1)


async def test_a_function_is_a_tool() -> None:
    spec = as_tool(add).spec
    assert (spec.name, spec.kind, spec.terminal, spec.required) == ("add", "function", False, ["a"])
    assert spec.description.startswith("Add two numbers.")
    assert set(spec.parameters["properties"]) == {"a", "b"}
    assert await call(add, a=40) == Result("42")


async def test_an_async_function_is_a_tool() -> None:
    assert (await call(add_later, a=41)).content == "42"


async def test_a_function_without_arguments_is_a_tool() -> None:
    def now() -> str:
        """Tell the time."""
        return "noon"

    assert as_tool(now).spec.validator.is_valid({})
    assert (await call(now)).content == "noon"


async def test_a_sync_function_runs_in_a_thread() -> None:
    def where() -> str:
        """Name the thread."""
        return threading.current_thread().name

    assert (await call(where)).content != threading.current_thread().name


async def test_a_tool_knows_its_call_and_its_config() -> None:
    @tool
    def who(x: str, call_id: Annotated[str, InjectedToolCallId], config: RunnableConfig) -> str:
        """Tell what is known."""
        return f"{x} {call_id} {'callbacks' in config}"

    assert list(as_tool(who).spec.parameters["properties"]) == ["x"]
    assert (await call(who, x="a")).content == "a c-1 True"


@tool
def reads_runtime(x: str, runtime: ToolRuntime) -> str:
    """Reads the runtime."""
    return x


@tool
def reads_state(x: str, state: Annotated[dict[str, Any], InjectedState]) -> str:
    """Reads the state."""
    return x


@tool
def reads_store(x: str, kept: Annotated[Any, InjectedStore()], state: Annotated[Any, InjectedState] = None) -> str:
    """Reads the store."""
    return x


@pytest.mark.parametrize(
    ("value", "argument"), [(reads_runtime, "runtime"), (reads_state, "state"), (reads_store, "kept")]
)
def test_arguments_that_only_an_agent_injects_are_refused(value: BaseTool, argument: str) -> None:
    with pytest.raises(ConfigError, match=f"'{value.name}' needs {argument}, which an agent injects.*fix: "):
        create_orchestrator(ScriptedRouter([]), [value])


async def test_a_command_is_the_message_in_it() -> None:
    @tool
    def remember(x: str, id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Writes into a state."""
        messages = [ToolMessage(f"remembered {x}", tool_call_id=id)] if x != "nothing" else []
        return Command(update={"messages": messages, "memory": x})

    assert (await call(remember, x="a")).content == "remembered a"
    with pytest.raises(ToolError, match=r"remember returned Command.* holds no result"):
        await call(remember, x="nothing")


async def test_artifacts_come_along() -> None:
    @tool(response_format="content_and_artifact")
    def look(query: str) -> tuple[str, dict[str, int]]:
        """Look up."""
        return query, {"score": 1}

    assert await call(look, query="x") == Result("x", artifacts=[{"score": 1}])


async def test_an_error_that_a_tool_returns_is_an_error() -> None:
    def fail(x: str) -> str:
        """Fail."""
        raise ToolException(f"no {x}")

    handled = StructuredTool.from_function(fail, handle_tool_error=True)
    with pytest.raises(ToolError, match="no luck"):
        await call(handled, x="luck")
    with pytest.raises(ToolException):
        await call(StructuredTool.from_function(fail), x="luck")


async def test_values_that_are_no_text_become_text() -> None:
    def data() -> dict[str, list[int]]:
        """Give data."""
        return {"a": [1, 2]}

    assert (await call(data)).content == '{"a": [1, 2]}'


async def test_a_tool_that_returns_directly_ends_the_run() -> None:
    @tool(return_direct=True)
    def submit(answer: str) -> str:
        """Submit the answer."""
        return f"submitted {answer}"

    assert as_tool(submit).spec.terminal
    graph = create_orchestrator(ScriptedRouter([("submit", {"answer": "42"})]), [submit]).compile()
    state = await graph.ainvoke({"messages": [HumanMessage("q")]})
    assert (state["answer"], state["stopped_by"]) == ("submitted 42", "answer")


def test_tools_stay_what_they_are() -> None:
    expert = Expert(ScriptedExpert("x"), name="e")
    assert as_tool(expert) is expert
    assert isinstance(as_tool(tool(add)), LangChainTool)


async def test_a_runnable_is_a_graph() -> None:
    made = as_tool(
        RunnableLambda(lambda state: {"answer": f"to {state['messages'][0][1]}"}).with_config(run_name="echo")
    )
    assert isinstance(made, Subgraph)
    assert (await call(made, request="it")).content == "to it"


def no_docstring(x: int) -> int:
    return x


def uncompiled() -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(MessagesState)
    graph.add_node("n", lambda state: state)
    graph.add_edge(START, "n")
    return graph


class BadName(BaseTool):
    name: str = "bad name!"
    description: str = "x"

    def _run(self) -> str:
        return ""


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (ScriptedExpert("x"), "is no tool by itself; wrap it: Expert"),
        (no_docstring, "'no_docstring' cannot be a tool: .*docstring"),
        (lambda x: x, "cannot be a tool"),
        (uncompiled(), "not compiled; pass graph.compile"),
        (BadName(), "'bad name!' cannot be a tool: .*name"),
        (42, "42 is no tool; expected a Tool, a LangChain tool, a function or a compiled graph"),
        ("search", "'search' is no tool"),
        (None, "None is no tool"),
        ({"type": "function"}, "is no tool"),
    ],
)
def test_what_cannot_be_a_tool_is_refused(value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        as_tool(value)


def test_an_argument_that_langchain_keeps_for_itself_is_refused() -> None:
    def plot(config: str, query: str) -> str:
        """Plot."""
        return config + query

    with pytest.raises(ConfigError, match=r"'plot' has an argument 'config', .*rename it"):
        as_tool(plot)
