"""Service conversations in the graph: what the router is sent, whose reply it is, and what later runs read of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from orchestra_graph.catalog import Catalog, Latency, Limits, ModelSpec, Price, ToolSpec
from orchestra_graph.errors import ConfigError, ToolError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.nemotron_service import INPUT_TOKENS, NemotronService, functions
from orchestra_graph.protocols.service_messages import GAP
from orchestra_graph.protocols.service_policy import FORMAT, HAND_OVER, NOBODY
from orchestra_graph.state import NO_ANSWER
from orchestra_graph.testing import ScriptedRouter
from orchestra_graph.tokens import FolderTokenizer
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.service_expert import ServiceExpert
from orchestra_graph.vllm import ChatVLLM
from tests.openai_server import OpenAIServer, Recorded, Reply

TOKENIZER = FolderTokenizer(Path(__file__).parent / "data" / "tokenizer")
POLICY = "# Shop\n\nBe kind. Where nothing helps, transfer the user to a human agent.\n"
CONFIG: Any = {"configurable": {"thread_id": "1"}}
PRICES = [(1.25, 10.0, 96.0), (0.25, 2.0, 27.0), (0.8, 0.8, 11.0)]


class Look(Tool):
    """Finds an order, unless there is none of that number."""

    def __init__(self, name: str = "look", **spec: Any) -> None:
        number = {"type": "integer", "description": "Number of the order."}
        parameters = {"type": "object", "properties": {"order": number}, "required": ["order"]}
        self.spec = ToolSpec(name=name, description="Looks an order up.", parameters=parameters, **spec)

    async def run(self, request: Request) -> Result:
        if request.args["order"] < 0:
            raise ToolError("there is no such order")
        return Result(f"order {request.args['order']} of <|im_start|> ß 猫")


class Says(Tool):
    """An expert that replies what it was made with."""

    reads_evidence = True

    def __init__(self, name: str, *replies: str | list[dict[str, Any]] | Exception, **spec: Any) -> None:
        self.replies = list(replies)
        self.briefs: list[list[dict[str, Any]]] = []
        self.spec = ToolSpec(name=name, kind="expert", **{"terminal": True, **spec})

    async def run(self, request: Request) -> Result:
        self.briefs.append(list(request.brief))
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, list):
            return Result("calls", artifacts=[{"text": "Moment.", "calls": reply}])
        return Result(reply, answer=reply)


def experts(*replies: Any) -> list[Tool]:
    made = [Says(f"expert-{n}", description=f"Knows {n}.") for n in (1, 2, 3)]
    made[0].replies = list(replies)
    for tool, (sent, written, seconds) in zip(made, PRICES, strict=True):
        price = Price(input=sent, output=written)
        tool.spec = tool.spec.model_copy(update={"price": price, "latency": Latency(p50=seconds)})
    return list(made)


def graph_of(router: Any, tools: Sequence[Tool], **options: Any) -> Any:
    protocol = options.pop("protocol", None) or NemotronService(TOKENIZER, POLICY)
    made = create_orchestrator(router, tools, protocol=protocol, fallback=None, **options)
    return made.compile(checkpointer=InMemorySaver())


async def ask(graph: Any, text: str, *before: BaseMessage) -> dict[str, Any]:
    state: dict[str, Any] = await graph.ainvoke({"messages": [*before, HumanMessage(text)]}, CONFIG)
    return state


def body(request: Recorded) -> dict[str, Any]:
    """What the router was sent, calls under numbers in place of ids, which are new in every run."""
    text = json.dumps({**request.body, "model": "m"})
    ids = dict.fromkeys(call["id"] for m in request.body["messages"] for call in m.get("tool_calls") or ())
    for n, call_id in enumerate(ids):
        text = text.replace(call_id, f"id{n}")
    found: dict[str, Any] = json.loads(text)
    return found


async def test_the_request_is_what_the_checkpoint_saw(openai_server: OpenAIServer) -> None:
    openai_server.script = [
        Reply("<think>look first</think>", [("look", {"order": 7})]),
        Reply("<think>done</think><message>It is there.</message>"),
    ]
    router = ChatVLLM(model="m", base_url=openai_server.base_url)
    state = await ask(graph_of(router, [*experts(), Look()]), "Where is 7?", AIMessage("Hi! How can I help you?"))
    assert (state["answer"], state["stopped_by"]) == ("It is there.", "answer")
    first, second = map(body, openai_server.requests)
    system = (
        "<instructions>\nS\n</instructions>\n<policy>\n# Shop\n\nBe kind. H\n\n</policy>  You are dedicated to "
        "provide the best service. Wrap thinking process between <think> </think>, message between <message> "
        "</message> and the tool call between <tool_call> </tool_call> ."
    )
    said = first["messages"][0]["content"]
    instructions = said.partition("\n</instructions>")[0].removeprefix("<instructions>\n")
    assert said.replace(instructions, "S", 1).replace(HAND_OVER, "H") == system
    assert first["messages"][1:] == [{"role": "user", "content": "Where is 7?"}]
    assert second["messages"] == [
        *first["messages"],
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"type": "function", "id": "id0", "function": {"name": "look", "arguments": '{"order": 7}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "id0", "content": "order 7 of < |im_start|> ß 猫"},
    ]
    assert first["tools"] == second["tools"] and [t["function"]["name"] for t in first["tools"]] == [
        "look",
        "call_expert",
    ]
    expert = first["tools"][-1]["function"]["parameters"]
    assert (list(expert["properties"]), expert["required"], expert["type"]) == (["expert"], ["expert"], "object")
    assert expert["properties"]["expert"]["description"].endswith(
        "\nModel | price per million input tokens | price per million output tokens | average latency\n"
        "expert-1 | $1.25 | $10 | 96s\nexpert-2 | $0.25 | $2 | 27s\nexpert-3 | $0.8 | $0.8 | 11s"
    )
    for request in (first, second):
        assert (request["temperature"], request["max_completion_tokens"]) == (1.0, 8000)
        assert not {"tool_choice", "top_p", "top_k", "seed"} & set(request)


async def test_many_messages_of_a_user_are_one_conversation_that_only_grows(openai_server: OpenAIServer) -> None:
    openai_server.script = [
        Reply("<think>a</think>", [("look", {"order": 1}), ("look", {"order": -1})]),
        Reply("<think>b</think><message>\nFound one.\n</message>"),
        Reply("", [("call_expert", {"expert": "expert-1"})]),
        Reply("<think>c</think>Done."),
        Reply("not a call <tool_call>{oops</tool_call>"),
        Reply("Bye."),
    ]
    tools = [Look(), *experts([{"name": "look", "args": {"order": 3}}])]
    graph = graph_of(ChatVLLM(model="m", base_url=openai_server.base_url), tools)
    answers = [(await ask(graph, text))["answer"] for text in ("1 and -1?", "And 3? <|im_end|>", "Thanks.")]
    assert answers == ["\nFound one.\n", "Done.", "Bye."]
    views = [request.body["messages"] for request in openai_server.requests]
    for earlier, later in pairwise(views):
        assert later[: len(earlier)] == earlier
    assert views[4] == views[5]
    assert [len(view) for view in views] == [2, 5, 7, 9, 11, 11]
    roles = [message["role"] for message in views[-1]]
    assert roles == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "user",
        *["assistant", "tool"],
        *["assistant", "user"],
    ]
    texts = [message["content"] for message in views[-1][2:]]
    assert texts == [
        None,
        "order 1 of < |im_start|> ß 猫",
        "Error: there is no such order",
        "\nFound one.\n",
        "And 3? < |im_end|>",
        "Moment.",
        "order 3 of < |im_start|> ß 猫",
        "Done.",
        "Thanks.",
    ]


async def test_an_experts_calls_are_a_turn_that_no_model_decides() -> None:
    router = ScriptedRouter([("call_expert", {"expert": "expert-1"}), "It is there."])
    state = await ask(graph_of(router, [*experts([{"name": "look", "args": {"order": 3}}]), Look()]), "3?")
    turns = list(state["turns"].values())
    assert [turn["decision"]["by"] for turn in turns] == ["router", "expert", "router"]
    assert [call["tool"] for turn in turns for call in turn["decision"]["calls"]] == [
        "expert-1",
        "look",
        "final_answer",
    ]
    assert (turns[1]["charges"].keys(), turns[1]["decision"]["reason"]) == ({f"{turns[1]['id']}-0#0"}, "Moment.")
    assert len(router.prompts) == 2
    calls = router.prompts[1][-2]
    assert isinstance(calls, AIMessage) and calls.text == "Moment."
    assert [call["id"] for call in calls.tool_calls] == [call["id"] for call in turns[1]["decision"]["calls"]]


@pytest.mark.parametrize("terminal", [False])
async def test_an_experts_words_go_to_the_user(terminal: bool) -> None:
    router = ScriptedRouter([("call_expert", {"expert": "expert-1"})])
    state = await ask(graph_of(router, [*experts("I am sorry."), Look()]), "3?")
    assert (state["answer"], state["stopped_by"], len(router.prompts)) == ("I am sorry.", "answer", 1)
    assert [message.text for message in state["messages"]] == ["3?", "I am sorry."]


async def test_invalid_calls_of_an_expert_and_an_expert_that_fails_leave_the_router_where_it_was() -> None:
    asked = ("call_expert", {"expert": "expert-1"})
    router = ScriptedRouter([asked, asked, asked, "Bye."])
    wrong = [{"name": "gone", "args": {}}], [{"name": "look", "args": "{oops"}], ToolError("no")
    state = await ask(graph_of(router, [*experts(*wrong), Look()]), "3?")
    assert state["answer"] == "Bye."
    assert [len(prompt) for prompt in router.prompts] == [2, 2, 2, 2]
    decisions = [turn["decision"] for turn in state["turns"].values()]
    assert [d["by"] for d in decisions] == ["router", "expert", "router", "expert", "router", "router"]
    assert [d.get("problem", {}).get("kind") for d in decisions][1::2][:2] == ["unknown_tool", "bad_arguments"]
    assert [message.type for message in state["messages"]] == ["human", "ai"]


async def test_a_later_run_finds_calls_and_results_in_the_messages() -> None:
    router = ScriptedRouter([[("look", {"order": 1}), ("look", {"order": -1})], "One is there."])
    state = await ask(graph_of(router, [Look()]), "1?")
    _, calls, found, failed, said = state["messages"]
    assert isinstance(calls, AIMessage) and isinstance(found, ToolMessage) and isinstance(failed, ToolMessage)
    ids = [call["id"] for turn in state["turns"].values() for call in turn["decision"]["calls"]][:2]
    assert [call["id"] for call in calls.tool_calls] == [found.tool_call_id, failed.tool_call_id] == ids
    assert found.text == "order 1 of <|im_start|> ß 猫"  # as it came: what is shown is neutralised, not what is kept
    assert (failed.text, failed.status, said.text) == ("Error: there is no such order", "error", "One is there.")


async def test_experts_read_policy_and_conversation() -> None:
    router = ScriptedRouter([("look", {"order": 1}), ("call_expert", {"expert": "expert-1"})])
    tools = [*experts("Hello."), Look()]
    await ask(graph_of(router, tools), "1?", HumanMessage("Hi."), AIMessage("Hi!"))
    (brief,) = tools[0].briefs  # type: ignore[attr-defined]
    assert brief[0] == {"role": "system", "content": f"<policy>\n# Shop\n\nBe kind. {NOBODY}\n\n</policy>"}
    assert [(m["role"], m["content"]) for m in brief[1:]] == [
        ("user", "Hi."),
        ("assistant", "Hi!"),
        ("user", "1?"),
        ("assistant", ""),
        ("tool", "order 1 of < |im_start|> ß 猫"),
    ]


async def test_a_tool_that_transfers_is_for_experts_alone() -> None:
    transfer = Look("transfer_to_human_agents")
    router = ScriptedRouter([("call_expert", {"expert": "expert-1"}), "Bye."])
    tools = [*experts([{"name": transfer.spec.name, "args": {"order": 1}}]), Look(), transfer]
    state = await ask(graph_of(router, tools), "1?")
    assert [tool["function"]["name"] for tool in router.tools] == ["look", "call_expert"]
    assert tools[0].briefs[0][0]["content"] == f"<policy>\n{POLICY}\n</policy>"  # type: ignore[attr-defined]
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]


async def test_a_brief_is_cut_to_what_the_expert_may_read() -> None:
    router = ScriptedRouter([("call_expert", {"expert": "expert-1"})])
    tools = [*experts("Hello."), Look()]
    tools[0].spec = tools[0].spec.model_copy(update={"limits": Limits(context_tokens=200)})
    before = [HumanMessage("first"), *(AIMessage(f"{n} " + "word " * 20) for n in range(40))]
    await ask(graph_of(router, tools), "last", *before)
    texts = [message["content"] for message in tools[0].briefs[0]]  # type: ignore[attr-defined]
    assert texts[1] == "first" and texts[-1] == "last" and GAP.format(n=40 - len(texts) + 4) in texts


async def test_a_long_conversation_is_cut_to_the_input_and_marks_the_gap() -> None:
    def reply(messages: list[BaseMessage]) -> Any:
        looked = sum(isinstance(message, ToolMessage) for message in messages)
        return "Bye." if GAP[:5] in "".join(m.text for m in messages) else ("look", {"order": looked})

    class Long(Look):
        async def run(self, request: Request) -> Result:
            return Result("word " * 500)

    router = ScriptedRouter(reply)
    state = await ask(graph_of(router, [Long(), *experts()]), "go")
    assert state["answer"] == "Bye."
    view = router.prompts[-1]
    assert [view[0].type, view[1].text, view[-1].type] == ["system", "go", "tool"]
    used = sum(TOKENIZER.count(m.text) for m in view) + TOKENIZER.count(json.dumps(router.tools))
    assert 0.7 * INPUT_TOKENS < used <= INPUT_TOKENS
    asked = [call["id"] for m in view if isinstance(m, AIMessage) for call in m.tool_calls]
    assert [m.tool_call_id for m in view if isinstance(m, ToolMessage)] == asked
    assert len(state["messages"]) > len(view)


async def test_the_shortest_run_pays_for_what_the_router_read() -> None:
    catalog = Catalog.of([], router=ModelSpec(price=Price(input=1.0)))
    graph = graph_of(ScriptedRouter(["Hi."]), [Look()], catalog=catalog, budget=Budget(dollars=1.0))
    assert (await ask(graph, "Hello"))["ledger"]["dollars"] > 0


async def test_a_router_that_never_says_anything_valid_is_given_up() -> None:
    router = ScriptedRouter(lambda _: ("gone", {}))
    state = await ask(graph_of(router, [Look()]), "1?")
    assert (state["stopped_by"], len(router.prompts)) == ("router", 3)
    assert {len(prompt) for prompt in router.prompts} == {2}


async def test_a_customer_never_reads_a_record_in_place_of_an_answer() -> None:
    router = ScriptedRouter([("look", {"order": 1}), *[("gone", {})] * 3])
    state = await ask(graph_of(router, [Look()]), "1?")
    assert [outcome["error"] for turn in state["turns"].values() for outcome in turn["outcomes"].values()] == [False]
    assert (state["stopped_by"], state["answer"]) == ("router", NO_ANSWER)


async def test_no_expert_no_function_for_it() -> None:
    never = Preferences(never=("expert-1", "expert-2", "expert-3"))
    for tools, options in (([Look()], {}), ([Look(), *experts()], {"preferences": never})):
        router = ScriptedRouter(["Hi."])
        await ask(graph_of(router, tools, **options), "1?")
        assert [tool["function"]["name"] for tool in router.tools] == ["look"]
    one = ScriptedRouter(["Hi."])
    await ask(graph_of(one, [Look(), *experts()], preferences=Preferences(never=("expert-2",))), "1?")
    description = one.tools[-1]["function"]["parameters"]["properties"]["expert"]["description"]
    assert "expert-2" not in description and "expert-3 | $0.8 | $0.8 | 11s" in description


def test_functions_are_the_same_list_for_the_same_catalog() -> None:
    catalog = Catalog.of([tool.spec for tool in (Look(), *experts())])
    assert functions(catalog) is functions(catalog.model_copy())


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([Look("call_expert")], "'call_expert'"),
        ([Look(), Says("expert-1", parameters=Look().spec.parameters)], "expert 'expert-1' requires order"),
    ],
)
def test_a_catalog_that_does_not_fit_is_refused(tools: list[Tool], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        graph_of(ScriptedRouter([]), tools)


async def test_instructions_and_the_clauses_can_be_given() -> None:
    router = ScriptedRouter(["Hi."])
    protocol = NemotronService(TOKENIZER, "A. B. A human agent.", instructions="I", hand_over="X", clauses=["B."])
    await ask(graph_of(router, [Look()], protocol=protocol), "1?")
    system = router.prompts[0][0]
    assert isinstance(system, SystemMessage)
    assert system.text == f"<instructions>\nI\n</instructions>\n<policy>\nA. X A human agent.\n</policy>{FORMAT}"


async def test_expert_models_speak_through_service_experts(openai_server: OpenAIServer) -> None:
    calls = [("look", {"order": 5})]
    openai_server.script = lambda body: (
        Reply("Here it is.") if body["messages"][-1]["role"] == "tool" else Reply("<think>x</think>", calls)
    )
    model = ChatVLLM(model="m", base_url=openai_server.base_url)
    expert = ServiceExpert(model, name="expert-1", functions=[Look().spec])
    ask_expert = ("call_expert", {"expert": "expert-1"})
    state = await ask(graph_of(ScriptedRouter([ask_expert, ask_expert]), [Look(), expert]), "5?")
    assert state["answer"] == "Here it is."
    first, second = (request.body for request in openai_server.requests)
    assert [m["role"] for m in second["messages"]] == ["system", "user", "assistant", "tool"]
    assert [tool["function"]["name"] for tool in first["tools"]] == ["look"]
