"""The router that ships with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, MessagesState, StateGraph

from orchestra_graph import Catalog, ConfigError, Expert, Price, ToolSpec, add_router
from orchestra_graph.middleware import OrchestraMiddleware
from orchestra_graph.protocols.scan import ScanProtocol
from orchestra_graph.routers.bundled import WORDS, refuse_unknown_words, tiny_folder, tiny_router, words_of
from orchestra_graph.testing import ScriptedExpert
from orchestra_graph.workbench import Workbench
from orchestra_graph.workbench.trial import open_run
from tests.commands import Orchestra

MOST_BYTES = 30_000_000
MOST_PARAMETERS = 7_000_000


def test_it_is_small() -> None:
    sizes = {path.name: path.stat().st_size for path in tiny_folder().iterdir()}
    assert sum(sizes.values()) < MOST_BYTES
    assert sizes["model.safetensors"] / 4 < MOST_PARAMETERS


def test_its_card_and_curves_tell_of_the_same_trainings() -> None:
    card = (tiny_folder() / "README.md").read_text(encoding="utf-8")
    stages = json.loads((tiny_folder() / "curves.json").read_text(encoding="utf-8"))
    assert stages
    assert all(f"`{stage['name']}`: {stage['steps']:,} steps" in card for stage in stages)


async def test_a_graph_speaks_its_protocol_without_being_told() -> None:
    bench = Workbench()
    task = bench.task("arithmetic/held_out/2/17")
    run = open_run(bench, tiny_router(), task)
    state = await run.graph.ainvoke({"messages": [("user", task.question)]})
    assert state["stopped_by"] == "answer"
    assert all("line" in turn["decision"]["reason"] for turn in state["turns"].values())
    assert isinstance(tiny_router().protocol, ScanProtocol)


def answer(state: MessagesState) -> dict[str, Any]:
    """Small general assistant."""
    return {"messages": [("ai", "4")]}


def test_a_graph_that_it_is_put_into_speaks_its_protocol_as_well() -> None:
    builder = StateGraph(MessagesState).add_node("answer", answer).add_edge("answer", END)
    add_router(builder, tiny_router(), [ToolSpec(name="answer", terminal=True)])
    graph, config = builder.compile(InMemorySaver()), cast("RunnableConfig", {"configurable": {"thread_id": "1"}})
    graph.invoke({"messages": [HumanMessage("What is 2 + 2?")]}, config)
    (turn,) = graph.get_state(config).values["orchestra_turns"].values()
    assert (turn["decision"]["by"], "problem" in turn["decision"]) == ("router", False)


def test_a_graph_of_which_no_destination_ends_a_run_is_not_in_its_reach() -> None:
    builder = StateGraph(MessagesState).add_node("answer", answer)
    with pytest.raises(ConfigError, match=r"the protocol scan .* no tool ends a run; fix: .*ToolSpec\(terminal=True\)"):
        add_router(builder, tiny_router(), ["answer"])


def test_an_agent_speaks_its_protocol_as_well() -> None:
    expert = Expert(ScriptedExpert("4"), name="small", description="Small general assistant.", price=Price())
    orchestra = OrchestraMiddleware(tiny_router(), [expert])
    agent: Any = create_agent(expert.model, middleware=[orchestra])
    (turn,) = agent.invoke({"messages": [("user", "What is 2 + 2?")]})["turns"].values()
    assert (turn["decision"]["by"], "problem" in turn["decision"]) == ("router", False)


def test_the_catalogs_of_the_workbench_are_in_its_words() -> None:
    bench = Workbench()
    known = set((tiny_folder() / WORDS).read_text(encoding="utf-8").split())
    for catalog in [bench.catalog, *(bench.sample(5, index).catalog for index in range(20))]:
        refuse_unknown_words(catalog)
        words = set[str]().union(*(words_of(spec.description) for spec in catalog.tools.values()))
        assert len(words - known) < 0.1 * len(words)


@pytest.mark.parametrize(
    ("description", "said"),
    [("Summarises legal contracts under Swiss law.", "it does not know contracts, law, legal"), ("", "no description")],
)
def test_a_catalog_in_other_words_is_refused_and_the_alternatives_are_named(description: str, said: str) -> None:
    catalog = Catalog.of([ToolSpec(name="lawyer", kind="expert", description=description, terminal=True)])
    with pytest.raises(ConfigError, match=said) as caught:
        refuse_unknown_words(catalog)
    assert "'lawyer'" in str(caught.value)
    assert "the router `rules`" in str(caught.value)


def test_the_words_are_a_sorted_list() -> None:
    words = (tiny_folder() / WORDS).read_text(encoding="utf-8").split()
    assert words == sorted(set(words))


def test_ask_takes_it_for_the_workbench(orchestra: Orchestra) -> None:
    done = orchestra("ask", "What is (1234567 - 765) * 8912345?", "--router", "tiny", "--json")
    assert done.code == 0
    assert done.json["answer"] == str((1234567 - 765) * 8912345)


def test_ask_refuses_it_for_another_catalog(orchestra: Orchestra, tmp_path: Path) -> None:
    path = tmp_path / "team.toml"
    path.write_text(
        'version = 1\n[tools.lawyer]\nkind = "expert"\nterminal = true\nmodel = "gpt-5"\napi_key_env = "KEY"\n'
        'description = "Summarises legal contracts under Swiss law."\n'
    )
    done = orchestra("ask", "Is it binding?", "--catalog", str(path), "--router", "tiny")
    assert done.code == 1
    assert "the tiny router was trained on the workbench and cannot judge 'lawyer'" in done.err
