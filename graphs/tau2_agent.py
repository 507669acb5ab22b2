"""The service graph as an agent of tau2-bench: a simulated customer, an environment that carries out the tools.

    import sys; sys.path.insert(0, "graphs")
    from tau2_agent import register
    register()                                            # then: tau2's runner with agent "orchestra_service"

tau2 1.x is installed from its repository, github.com/sierra-research/tau2-bench; the package index has another one of
the same name. The environment owns the tools, so here they only ask for it: each call interrupts the graph, the calls
of one reply together are the agent's message, and the environment's results resume it. Router, experts, tokenizer and
budget come from service.toml; its policy and domain are not read. Importing this file does not need tau2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from orchestra_graph import MissingError
from orchestra_graph.settings import load_module, read_settings

NAME: Final = "orchestra_service"
FOLDER: Final = Path(__file__).parent
_FIX: Final = "pip install git+https://github.com/sierra-research/tau2-bench"


def register(settings: Path = FOLDER / "service.toml", name: str = NAME) -> None:
    """Register the service graph with tau2 under a name.

    Raises:
        MissingError: tau2 1.x is not installed.
    """
    try:
        from tau2.registry import registry  # noqa: PLC0415  (optional)

        agent = _agent_class()
    except ImportError as error:
        raise MissingError("tau2 1.x", _FIX) from error

    def factory(tools: Sequence[Any], domain_policy: str, **_: Any) -> Any:
        return agent(tools, domain_policy, settings)

    registry.register_agent_factory(factory, name)


def _agent_class() -> Any:
    from tau2.agent.base_agent import HalfDuplexAgent  # noqa: PLC0415  (optional)
    from tau2.agent.llm_agent import AGENT_INSTRUCTION  # noqa: PLC0415
    from tau2.data_model import message as tau2  # noqa: PLC0415

    service, session = load_module(FOLDER / "service.py"), load_module(FOLDER / "session.py")

    class OrchestraAgent(HalfDuplexAgent):  # type: ignore[misc]
        """One conversation of tau2, served by the graph."""

        def __init__(self, tools: Sequence[Any], domain_policy: str, settings: Path) -> None:
            super().__init__(tools=list(tools), domain_policy=domain_policy)
            own = read_settings(settings, service.ServiceSettings)
            domain = [session.EnvironmentTool(tool.openai_schema["function"]) for tool in tools]
            graph = service.assemble(own, domain, domain_policy, instructions=AGENT_INSTRUCTION)
            self._session = session.Session(graph)

        def get_init_state(self, message_history: Sequence[Any] | None = None) -> Any:
            return session.SessionState([_message(message) for message in message_history or ()])

        def generate_next_message(self, message: Any, state: Any) -> tuple[Any, Any]:
            if isinstance(message, tau2.UserMessage):
                step = self._session.say(message.content or "", state)
            else:
                parts = message.tool_messages if isinstance(message, tau2.MultiToolMessage) else [message]
                step = self._session.results([(part.id, part.content or "", part.error) for part in parts], state)
            calls = [tau2.ToolCall(**call) for call in step.calls]
            # tau2 takes text or calls, never both, and no empty list.
            return tau2.AssistantMessage(
                role="assistant", content=step.text, tool_calls=calls or None, cost=step.dollars
            ), state

        def set_seed(self, seed: int) -> None:
            """The released protocol samples without a seed."""

    return OrchestraAgent


def _message(message: Any) -> BaseMessage:
    if message.role == "user":
        return HumanMessage(message.content or "")
    if message.role == "tool":
        return ToolMessage(message.content or "", tool_call_id=message.id)
    calls = [{"name": call.name, "args": call.arguments, "id": call.id} for call in message.tool_calls or ()]
    return AIMessage(message.content or "", tool_calls=calls)
