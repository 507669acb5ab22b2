from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver

from orchestra_graph.catalog import Catalog, Latency, Price, ToolSpec
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.base import Situation
from orchestra_graph.protocols.conversation import ConversationProtocol, functions
from orchestra_graph.protocols.reply import FINAL_ANSWER
from orchestra_graph.routers import Cheapest, Choice, Fixed, Past, ProgramRouter, Random, Rules, Scene
from orchestra_graph.routers.base import read_scene
from orchestra_graph.routers.rules import LOOK_UP, field_of, looks_hard, suitability
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.expert import Expert
from orchestra_graph.turns import Turn

MATHS = "What is 12 * 37 + 4?"
FACT = "Who is the mayor of Turku?"


def spec(name: str, description: str = "", *, dollars: float = 0.0, seconds: float = 1.0, **rest: Any) -> ToolSpec:
    return ToolSpec(
        **{
            "name": name,
            "kind": "expert",
            "description": description,
            "price": Price(per_call=dollars),
            "latency": Latency(p50=seconds),
            "terminal": True,
            **rest,
        }
    )


LARGE = spec("large", "The strongest generalist.", dollars=0.05, seconds=30)
SMALL = spec("small", "A small generalist for easy questions.", dollars=0.001, seconds=2)
MATH = spec("math", "Mathematics only: equations and sums.", dollars=0.01, seconds=6)
CODER = spec("coder", "Programming only: writes Python functions.", dollars=0.01, seconds=8)
SEARCH = spec("search", "Searches documents for facts.", dollars=0.002, terminal=False)
RUNNER = spec("runner", "Runs a program for a calculation.", dollars=0.002, terminal=False)
TEAM = Catalog.of([LARGE, SMALL, MATH, CODER, SEARCH, RUNNER])


class Scripted(Tool):
    """A tool that gives one result after the other, the last one again and again."""

    def __init__(self, line: ToolSpec, *results: Result | Exception) -> None:
        self.spec = line
        self.results = list(results) or [Result("I cannot tell.")]
        self.asked: list[dict[str, Any]] = []

    async def run(self, request: Request) -> Result:
        self.asked.append(request.args)
        result = self.results[min(len(self.asked), len(self.results)) - 1]
        if isinstance(result, Exception):
            raise result
        return result


ANSWER = Result("It is 4.", answer="4")


def team(catalog: Catalog = TEAM, **results: Result) -> list[Tool]:
    return [Scripted(line, *([results[name]] if name in results else [])) for name, line in catalog.tools.items()]


async def ask(
    router: BaseChatModel, tools: Sequence[Tool | BaseTool], question: str = MATHS, **options: Any
) -> dict[str, Any]:
    graph = create_orchestrator(router, tools, **options).compile()
    state = await graph.ainvoke({"messages": [HumanMessage(question)]})
    assert isinstance(state, dict)
    return state


def route(state: dict[str, Any]) -> list[str]:
    turns: list[Turn] = list(state["turns"].values())
    return [call["tool"] for turn in turns for call in turn["decision"]["calls"]]


def scene(question: str = MATHS, *past: Past, catalog: Catalog = TEAM, **preferences: Any) -> Scene:
    at = Situation(question, catalog, Preferences(**preferences), Budget())
    messages = ConversationProtocol().view(at).messages
    seen = read_scene(messages, functions(catalog))
    return Scene(seen.question, seen.lines, seen.preferences, list(past))


def declined(name: str) -> Past:
    return Past(name, {}, "I cannot tell.", error=False)


ALL_ROUTERS: list[ProgramRouter] = [Fixed(tool="large"), Cheapest(), Random(), Rules()]
EVERY = pytest.mark.parametrize("router", ALL_ROUTERS, ids=lambda router: type(router).__name__)


# What a program reads


def test_a_scene_holds_question_lines_preferences_and_past() -> None:
    done: Turn = {
        "id": "r-0",
        "index": 0,
        "decision": {
            "calls": [{"id": "r-0-0", "tool": "search", "args": {"q": 1}}, {"id": "r-0-1", "tool": "math", "args": {}}],
            "reason": "r",
            "by": "router",
            "repaired": ["something"],
        },
        "charges": {},
        "outcomes": {
            "r-0-0": {"content": "found", "error": False},
            "r-0-1": {"content": "down", "error": True},
        },
        "seconds": 1.0,
    }
    at = Situation(
        f"{MATHS}\n\n(Budget left: none) said I",
        TEAM,
        Preferences(cost=0.9, avoid={"large": 1.0}, text="Be cheap."),
        Budget(dollars=1, seconds=60),
        turns={"r-0": done},
        history=[HumanMessage("an earlier question"), AIMessage("answer")],
        turn_id="r-1",
    )
    seen = read_scene(ConversationProtocol().view(at).messages, functions(TEAM))
    assert seen.question == at.question
    assert seen.preferences == at.preferences
    assert [(line.name, line.per_call, line.seconds, line.terminal) for line in seen.lines] == [
        (line.name, line.price.per_call, line.latency.p50, line.terminal) for line in TEAM.tools.values()
    ]
    assert [line.description for line in seen.lines] == [line.description for line in TEAM.tools.values()]
    assert seen.past == [Past("search", {"q": 1}, "found", error=False), Past("math", {}, "Error: down", error=True)]


def test_a_remark_on_a_malformed_reply_is_not_the_question() -> None:
    malformed: Turn = {
        "id": "r-0",
        "index": 0,
        "decision": {"calls": [], "reason": "x", "by": "router", "problem": {"kind": "no_call", "detail": "d"}},
        "charges": {},
        "outcomes": {},
        "seconds": 1.0,
    }
    at = Situation(MATHS, TEAM, Preferences(), Budget(dollars=1), turns={"r-0": malformed}, turn_id="r-1")
    assert read_scene(ConversationProtocol().view(at).messages, []).question == MATHS


def test_the_newest_question_counts_and_what_came_before_it_does_not() -> None:
    calls = [{"name": "a", "args": {}, "id": "1", "type": "tool_call"}]
    messages: list[BaseMessage] = [
        SystemMessage("Preferences: be nice"),
        HumanMessage("first"),
        AIMessage("", tool_calls=calls),
        ToolMessage("result", tool_call_id="1"),
        AIMessage("answer"),
        HumanMessage("second"),
    ]
    seen = read_scene(messages, [])
    assert (seen.question, seen.past, seen.lines, seen.preferences) == ("second", [], [], Preferences())


def test_no_messages_are_no_trouble() -> None:
    assert read_scene([], []) == Scene("", [], Preferences(), [])


@EVERY
def test_a_tool_that_needs_more_than_a_text_is_not_called(router: ProgramRouter) -> None:
    needs = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    takes = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    catalog = Catalog.of([spec("count", parameters=needs), spec("large", parameters=takes, dollars=1)])
    view = ConversationProtocol().view(Situation(MATHS, catalog, Preferences(), Budget()))
    reply = router.bind_tools(view.tools).invoke(view.messages)
    assert [(call["name"], call["args"]) for call in reply.tool_calls] == [("large", {"q": MATHS})]


# In an orchestrator


@EVERY
async def test_each_answers_where_a_tool_does(router: ProgramRouter) -> None:
    state = await ask(router, team(large=ANSWER, small=ANSWER, math=ANSWER, coder=ANSWER))
    assert (state["answer"], state["stopped_by"]) == ("4", "answer")
    assert state["ledger"]["tools"].get("router", {"dollars": 0})["dollars"] == 0


@EVERY
async def test_each_gives_up_soon_where_no_tool_answers(router: ProgramRouter) -> None:
    state = await ask(router, team())
    assert state["stopped_by"] == "router"
    assert state["answer"] == "I cannot tell."
    assert len(state["turns"]) <= 13


@EVERY
async def test_each_gives_up_soon_where_every_tool_fails(router: ProgramRouter) -> None:
    tools = [Scripted(line, ValueError("broken")) for line in TEAM.tools.values()]
    state = await ask(router, tools)
    assert state["stopped_by"] == "router"
    assert state["answer"].startswith("No answer")
    assert len(state["turns"]) <= 13


@EVERY
async def test_a_refused_call_is_not_repeated_for_ever(router: ProgramRouter) -> None:
    dear = Catalog.of([spec("large", "A generalist.", dollars=5.0), spec("free", "Reads.", terminal=False)])
    tools = team(dear)
    state = await ask(router, tools, budget=Budget(dollars=0.5))
    refused = [o for turn in state["turns"].values() for o in turn["outcomes"].values() if o.get("unsent")]
    assert len(refused) <= 12
    assert len(state["turns"]) <= 13
    assert tools[0].asked == []  # type: ignore[attr-defined]
    assert state["ledger"]["dollars"] == 0


@EVERY
async def test_each_answers_in_words_where_no_tool_ends_the_run(router: ProgramRouter) -> None:
    state = await ask(
        router, [Scripted(line.model_copy(update={"terminal": False}), Result("found")) for line in (LARGE, SMALL)]
    )
    assert (state["answer"], state["stopped_by"]) == ("found", "answer")
    assert route(state)[-1] == FINAL_ANSWER


async def test_a_router_that_never_calls_is_replaced_by_the_fallback() -> None:
    state = await ask(ScriptedRouter(lambda messages: "I think it is 4."), team(math=ANSWER), max_malformed=3)
    decided = [turn["decision"]["by"] for turn in state["turns"].values()]
    assert decided == ["router", "router", "router", "fallback"]
    assert (route(state), state["answer"]) == (["math"], "4")


async def test_a_run_stops_where_neither_router_nor_fallback_calls() -> None:
    silent = ScriptedRouter(lambda messages: "I do not know.")
    for fallback in (None, ScriptedRouter(lambda messages: "Nor do I.")):
        state = await ask(silent, team(), fallback=fallback)
        assert state["stopped_by"] == "router"
        assert len(state["turns"]) == (3 if fallback is None else 4)


async def test_fixed_calls_the_first_tools_once_and_its_tool_twice() -> None:
    state = await ask(Fixed(tool="large", before=("search", "runner")), team(), fallback=None)
    assert route(state) == ["search", "runner", "large", "large"]


async def test_cheapest_goes_from_the_cheapest_up_and_leaves_steps_out() -> None:
    state = await ask(Cheapest(), team())
    assert [name for name in route(state) if name not in ("search", "runner")][:4] == [
        "small",
        "math",
        "coder",
        "large",
    ]
    reordered = TEAM.reprice({"large": Price(per_call=0.0001)})
    assert route(await ask(Cheapest(), team(reordered, large=ANSWER), catalog=reordered)) == ["large"]


async def test_random_is_the_same_for_the_same_seed_and_question() -> None:
    async def routes(seed: int, question: str = MATHS) -> list[str]:
        return route(await ask(Random(seed=seed), team(), question, fallback=None))

    first = await routes(1)
    assert first == await routes(1)
    assert len(first) == 12
    assert len({tuple(await routes(seed)) for seed in range(5)}) == 5
    assert first != await routes(1, FACT)
    assert {name for seed in range(5) for name in await routes(seed)} == set(TEAM.tools)


@EVERY
async def test_a_second_question_is_answered_for_itself(router: ProgramRouter) -> None:
    heard = []

    def answer(prompt: str) -> str:
        heard.append(prompt)
        return f"<answer>{len(heard)}</answer>"

    graph = create_orchestrator(router, [Expert(ScriptedExpert(answer), name="large")]).compile(InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    for number, question in enumerate([MATHS, FACT], 1):
        state = await graph.ainvoke({"messages": [HumanMessage(question)]}, config)
        assert (state["answer"], len(state["turns"])) == (str(number), 1)
    assert FACT in heard[1]


# As an ordinary chat model


@tool
def lookup(query: str) -> str:
    """Look a fact up in documents."""
    return f"The mayor, asked for by {query!r}, is Ada."


@tool
def broken(query: str) -> str:
    """Find something else."""
    raise ValueError("down")


@pytest.mark.parametrize(
    "router", [Fixed(tool="lookup"), Cheapest(), Random(seed=3), Rules()], ids=lambda r: type(r).__name__
)
async def test_each_works_in_create_agent_and_keeps_questions_apart(router: ProgramRouter) -> None:
    agent = create_agent(router, [lookup], system_prompt="Preferences: be nice", checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    for number, question in enumerate([FACT, "Who is the mayor of Vaasa?"], 1):
        state = await agent.ainvoke({"messages": [HumanMessage(question)]}, config)
        results = [m for m in state["messages"] if isinstance(m, ToolMessage)]
        assert question in results[-1].text
        assert state["messages"][-1].text == results[-1].text
        assert len({m.tool_call_id for m in results}) == len(results) >= number
        assert len(state["messages"]) <= 28 * number


@pytest.mark.parametrize("router", [Fixed(tool="lookup"), Cheapest(), Rules()], ids=lambda r: type(r).__name__)
def test_the_first_result_is_the_answer_where_no_tool_ends_the_run(router: ProgramRouter) -> None:
    state = create_agent(router, [lookup]).invoke({"messages": [HumanMessage(FACT)]})
    assert [type(m).__name__ for m in state["messages"]] == ["HumanMessage", "AIMessage", "ToolMessage", "AIMessage"]


async def test_each_streams_as_a_chat_model_does() -> None:
    bound = Rules().bind_tools([lookup])
    parts = [part async for part in bound.astream([HumanMessage(FACT)])]
    assert [call["name"] for part in parts for call in part.tool_calls] == ["lookup"]
    assert (await bound.ainvoke(FACT)).usage_metadata == {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


# Rules


@pytest.mark.parametrize(
    ("question", "field"),
    [
        ("What is 12 * 37?", "mathematics"),
        ("Solve x**2 - 4 = 0 for x.", "mathematics"),
        ("What is the remainder when 7 is divided by 3?", "mathematics"),
        ("Write a Python function that sorts a list.", "programming"),
        ("Cancel the order of customer C-12.", "records"),
        (FACT, LOOK_UP),
        ("What fish lives in the Simkos?", LOOK_UP),
        ("hello", None),
        ("", None),
    ],
)
def test_the_field_of_a_question_is_guessed(question: str, field: str | None) -> None:
    assert field_of(question) == field


def test_suitability_goes_by_what_a_description_speaks_of() -> None:
    lines = {line.name: line for line in scene().lines}
    fits = {name: suitability(line, "mathematics", hard=False) for name, line in lines.items()}
    assert fits["math"] == fits["runner"] == 1.0
    assert fits["coder"] == fits["search"] == 0.0
    assert 0.0 < fits["large"] == fits["small"] < 1.0
    hard = {name: suitability(line, "mathematics", hard=True) for name, line in lines.items()}
    assert hard["small"] < hard["large"] == fits["large"]


@pytest.mark.parametrize(
    ("question", "hard"),
    [(MATHS, False), ("What is 12345678 * 3?", True), ("Solve x**4 = 16.", True), ("The slope of sin(x) at 0?", True)],
)
def test_hard_questions_look_so(question: str, hard: bool) -> None:
    assert looks_hard(question) == hard


def choice(seen: Scene) -> Choice:
    return Rules().choose(seen)


def test_rules_call_the_specialist_first_then_a_step_then_the_others() -> None:
    past: list[Past] = []
    called = []
    while (chosen := choice(scene(MATHS, *past))).tool is not None:
        called.append(chosen.tool)
        past.append(declined(chosen.tool))
    assert called[:3] == ["math", "runner", "math"]
    assert called.count("runner") == 1
    assert sorted(called[3:]) == ["coder", "large", "small"]
    assert chosen.reason == "I cannot tell."


def test_rules_search_before_a_look_up_and_again_while_nobody_can_answer() -> None:
    called: list[str] = []
    while (chosen := choice(scene(FACT, *map(declined, called)))).tool is not None:
        called.append(chosen.tool)
    assert [n for n, name in enumerate(called) if name == "search"] == [0, 2, 4]
    assert len(called) == 9


def test_rules_do_not_repeat_a_search_that_fails() -> None:
    failed = Past("search", {}, "Error: down", error=True)
    assert choice(scene(FACT, failed)).tool != "search"


def test_rules_keep_to_what_the_user_prefers_and_avoids() -> None:
    assert choice(scene(MATHS, prefer={"large": 1.0})).tool == "large"
    assert choice(scene(MATHS, avoid={"math": 1.0})).tool not in ("math", "large")
    assert choice(scene(FACT, avoid={"search": 1.0})).tool != "search"


def test_rules_weigh_cost_and_time_as_the_user_does() -> None:
    dear = spec("dear", "Mathematics.", dollars=1.0, seconds=1)
    slow = spec("slow", "Mathematics.", dollars=0.01, seconds=60)
    catalog = Catalog.of([dear, slow])
    assert choice(scene(MATHS, catalog=catalog, cost=1.0, latency=0.0)).tool == "slow"
    assert choice(scene(MATHS, catalog=catalog, cost=0.0, latency=1.0)).tool == "dear"
    cheap = Catalog.of([LARGE, SMALL])
    assert choice(scene(MATHS, catalog=cheap, cost=1.0)).tool == "small"
    assert choice(scene("What is 12345678 * 3?", catalog=cheap, cost=0.0, latency=0.0)).tool == "large"


def test_rules_call_something_where_nothing_is_known() -> None:
    catalog = Catalog.of([spec("a"), spec("b")])
    assert choice(scene("hello", catalog=catalog)).tool in ("a", "b")
    assert choice(Scene("hello", [], Preferences(), [])).tool is None
