"""What an expert is asked, and what becomes of its reply in each role."""

from __future__ import annotations

import time
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from orchestra_graph.approval import most_dollars
from orchestra_graph.catalog import Catalog, Limits, Price, ToolSpec
from orchestra_graph.errors import ConfigError, ToolError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tools.base import Finding, Request, Result, Tool
from orchestra_graph.tools.expert import (
    BOXED,
    LONGEST_QUERY,
    PROMPTS,
    RUN_SHARE,
    Expert,
    extract_answer,
    prompt_text,
)
from orchestra_graph.tools.sandbox import Execution

QUESTION: Any = {"messages": [HumanMessage("How many?")]}


class Search(Tool):
    """Finds what it was asked for."""

    def __init__(self, **spec: Any) -> None:
        parameters = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
        self.spec = ToolSpec(name="search", kind="search", parameters=parameters, **spec)
        self.queries: list[str] = []

    async def run(self, request: Request) -> Result:
        self.queries.append(request.args["query"])
        return Result(f"found {request.args['query']}", artifacts=[{"id": 1}])


class Recorder:
    """Runs nothing, and says what it was given."""

    def __init__(self) -> None:
        self.programs: list[str] = []
        self.timeouts: list[float] = []

    async def run(self, code: str, *, timeout: float = 10, stdin: str = "") -> Execution:
        self.programs.append(code)
        self.timeouts.append(timeout)
        return Execution(stdout="42\n", stderr="", exit_code=0)


def request(**parts: Any) -> Request:
    return Request(**{"args": {}, "question": "How many?", **parts})


async def ask(reply: Any, role: Any = "answer", **options: Any) -> Result:
    model = ScriptedExpert(reply)
    return await Expert(model, name="expert", role=role, **options).run(request())


# What is read.


def test_the_prompt_is_the_question_alone_where_there_is_nothing_else() -> None:
    assert prompt_text(request()) == "Question:\nHow many?"


def test_the_prompt_holds_evidence_and_request() -> None:
    evidence = (Finding("search", "search", {"query": "a"}, "first"), Finding("code", "code", {}, "second"))
    assert prompt_text(request(evidence=evidence, args={"request": "count"})) == (
        'Question:\nHow many?\n\nEvidence:\n[1] search {"query": "a"}\nfirst\n\n[2] code {}\nsecond\n\nRequest:\ncount'
    )


def test_control_tokens_in_a_prompt_are_broken() -> None:
    text = prompt_text(
        Request(
            args={"request": "<|im_start|>"},
            question="<|im_end|>",
            evidence=(Finding("s", "search", {}, "<tool_call>{}</tool_call> </think>"),),
        )
    )
    assert not any(token in text for token in ("<|im_start|>", "<|im_end|>", "<tool_call>", "</think>"))


def test_control_tokens_in_the_arguments_of_evidence_are_broken() -> None:
    args = {"query": "a <|im_end|>", "more": ["</tool_call>", {"[INST]": 3}]}
    text = prompt_text(request(evidence=(Finding("s", "search", args, "found"),)))
    assert text.endswith('[1] s {"query": "a < |im_end|>", "more": ["< /tool_call>", {"[ INST]": 3}]}\nfound')


@pytest.mark.parametrize("role", PROMPTS)
async def test_each_role_has_its_prompt(role: Any) -> None:
    model = ScriptedExpert("reply")
    expert = Expert(model, name="expert", role=role, sandbox=Recorder(), retriever=Search())
    await expert.run(request())
    system, question = model.prompts[0]
    assert isinstance(system, SystemMessage)
    assert isinstance(question, HumanMessage)
    assert (system.text, question.text) == (PROMPTS[role], "Question:\nHow many?")


async def test_a_brief_takes_the_place_of_question_and_evidence() -> None:
    model = ScriptedExpert("reply")
    brief = ({"role": "user", "content": "shown"}, {"role": "assistant", "content": "said"})
    await Expert(model, name="expert").run(request(brief=brief, evidence=(Finding("s", "search", {}, "found"),)))
    assert [(m.type, m.text) for m in model.prompts[0]] == [
        ("system", PROMPTS["answer"]),
        ("human", "shown"),
        ("ai", "said"),
    ]


@pytest.mark.parametrize(
    ("model", "role", "prompt"),
    [
        ("Qwen/Qwen2.5-Math-7B-Instruct", "answer", BOXED),
        ("gpt-5", "answer", PROMPTS["answer"]),
        ("Qwen/Qwen3-32B", "chat", PROMPTS["chat"]),
    ],
)
async def test_models_of_qwen_are_asked_for_a_box(
    model: str, role: Any, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedExpert, "model_name", model, raising=False)
    asked = ScriptedExpert("reply")
    await Expert(asked, name="expert", role=role).run(request())
    assert asked.prompts[0][0].text == prompt


async def test_a_prompt_of_ones_own() -> None:
    model = ScriptedExpert("reply")
    await Expert(model, name="expert", prompt="Be brief.").run(request())
    assert model.prompts[0][0].text == "Be brief."


# Role answer.


async def test_answer_states_the_final_answer_beside_the_whole_reply() -> None:
    result = await ask("Six by seven. <answer> 42 </answer>")
    assert (result.content, result.answer) == ("Six by seven. <answer> 42 </answer>", "42")


async def test_a_reply_without_an_answer_is_content_only() -> None:
    result = await ask("I lack the population.")
    assert (result.content, result.answer) == ("I lack the population.", None)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>42</answer>", "42"),
        ("<ANSWER>\n42\n</Answer>", "42"),
        ("<answer>1</answer> no, <answer>2</answer>", "2"),
        (r"\boxed{42}", "42"),
        (r"\boxed {42}", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\text{a {b} c}}", r"\text{a {b} c}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{[0, 1\}}", r"[0, 1\}"),
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"\boxed{1} <answer>2</answer>", "2"),
        (r"<answer>1</answer> \boxed{2}", "2"),
        (r"<answer>\boxed{5}</answer>", "5"),
        (r"{ stray \boxed{3}", "3"),
        (r"} stray \boxed{3}", "3"),
        ("I put it between <answer> and so on. <answer>7</answer>", "7"),
        ("<answer>42</answer> so I write \\boxed{}.", "42"),
        ("<answer>multi\nline</answer>", "multi\nline"),
        ("<answer></answer>", None),
        ("<answer>  </answer>", None),
        (r"\boxed{}", None),
        (r"\boxed{1", None),
        ("<answer>1", None),
        ("no answer", None),
        ("", None),
    ],
)
def test_extract_answer(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize("piece", ["<answer>", r"\boxed{", "{", "}", "</answer>", "\\", r"\boxed"])
def test_an_endless_reply_is_read_in_linear_time(piece: str) -> None:
    started = time.perf_counter()
    assert extract_answer(piece * (500_000 // len(piece))) is None
    assert time.perf_counter() - started < 3.0


def test_deeply_nested_boxes_are_read_in_linear_time() -> None:
    started = time.perf_counter()
    assert extract_answer(r"\boxed{" * 50_000 + "5" + "}" * 50_000) == "5"
    assert time.perf_counter() - started < 3.0


@pytest.mark.parametrize(
    "reply",
    [
        "<think>maybe <answer>1</answer></think><answer>2</answer>",
        "maybe <answer>1</answer></think>\n<answer>2</answer>",
        [
            AIMessage(
                [{"type": "thinking", "thinking": "<answer>1</answer>"}, {"type": "text", "text": "<answer>2</answer>"}]
            )
        ],
        [AIMessage([{"type": "reasoning", "reasoning": "<answer>1</answer>"}, "<answer>2</answer>"])],
    ],
)
async def test_reasoning_is_no_answer(reply: Any) -> None:
    result = await ask(reply)
    assert (result.content, result.answer) == ("<answer>2</answer>", "2")


@pytest.mark.parametrize("reply", ["", "  \n", "<think>nothing else</think>", "<think>cut off: <answer>1</answer>"])
async def test_an_empty_reply_may_be_asked_for_again(reply: str) -> None:
    with pytest.raises(ToolError, match="empty") as caught:
        await ask(reply)
    assert caught.value.retryable


# Roles chat, code and search.


async def test_chat_is_content_only() -> None:
    result = await ask("<answer>42</answer>", role="chat")
    assert (result.content, result.answer) == ("<answer>42</answer>", None)


PROGRAMS = {
    "```python\nprint(6 * 7)\n```": "print(6 * 7)",
    "Try this:\n```py\nprint(6 * 7)\n```\nIt prints 42.": "print(6 * 7)",
    "```python\nwrong\n```\nno:\n```python\nprint(6 * 7)\n```": "print(6 * 7)",
    "```python\nprint(6 * 7)\n```\nOutput:\n```\n42\n```": "print(6 * 7)",
    "```python\nprint(6 * 7)\n```\nthen\n```text\n42\n```\nfoo": "print(6 * 7)",
    "```\nprint(6 * 7)\n```": "print(6 * 7)",
    "Here: ```python\nprint(6 * 7)```": "print(6 * 7)",
    "```python\nprint(6 * 7)": "print(6 * 7)",
    "1. Run\n   ```python\n   if 1:\n       print(6 * 7)\n   ```": "if 1:\n    print(6 * 7)",
    "```Python\nprint(6 * 7)\n```\n```python\n```": "print(6 * 7)",
    "print(6 * 7)": "print(6 * 7)",
}


@pytest.mark.parametrize("reply", PROGRAMS)
async def test_code_runs_the_last_program(reply: str) -> None:
    sandbox = Recorder()
    result = await ask(reply, role="code", sandbox=sandbox)
    assert sandbox.programs == [PROGRAMS[reply]]
    assert result.content == f"```python\n{PROGRAMS[reply]}\n```\n\n```output\n42\n```"
    assert result.answer is None
    assert result.artifacts == [{"code": f"\n{PROGRAMS[reply]}\n", "output": "42\n"}]


async def test_a_program_may_run_for_a_share_of_the_experts_timeout() -> None:
    sandbox = Recorder()
    await ask("print(1)", role="code", sandbox=sandbox)
    await ask("print(1)", role="code", sandbox=sandbox, limits=Limits(timeout=240))
    assert sandbox.timeouts == [RUN_SHARE * Limits().timeout, 60.0] == [30.0, 60.0]


async def test_what_a_program_wrote_beside_its_output_is_no_artifact() -> None:
    class Failing(Recorder):
        async def run(self, code: str, *, timeout: float = 10, stdin: str = "") -> Execution:
            return Execution(stdout="", stderr="ValueError", exit_code=1)

    result = await ask("print(1)", role="code", sandbox=Failing())
    assert "ValueError" in result.content
    assert result.artifacts == [{"code": "\nprint(1)\n", "output": ""}]


@pytest.mark.parametrize("reply", ["height of K2", 'Let me see.\n"height of K2"', "`height of K2`\n"])
async def test_search_sends_its_last_line(reply: str) -> None:
    search = Search()
    result = await ask(reply, role="search", retriever=search)
    assert search.queries == ["height of K2"]
    assert (result.content, result.artifacts) == ("Query: height of K2\nfound height of K2", [{"id": 1}])


async def test_a_query_is_cut_and_an_empty_one_is_refused() -> None:
    search = Search()
    await ask("x" * 1000, role="search", retriever=search)
    assert search.queries == ["x" * LONGEST_QUERY]
    with pytest.raises(ToolError, match="no query"):
        await ask('""', role="search", retriever=search)


async def test_the_search_of_an_expert_is_billed_as_a_call_of_its_tool() -> None:
    web = Search(price=Price(per_call=0.5))
    seek = Expert(ScriptedExpert("q"), name="seek", role="search", retriever=web)
    catalog = Catalog.of([ToolSpec(name=web.spec.name, price=Price(per_call=0.001))])
    router = ScriptedRouter([("seek", {}), (web.spec.name, {"query": "q"}), ("final_answer", {"answer": "x"})])
    state = await create_orchestrator(router, [web, seek], catalog=catalog).compile().ainvoke(QUESTION)
    assert {name: account["dollars"] for name, account in state["ledger"]["tools"].items() if name != "router"} == {
        "seek": 0.001,
        web.spec.name: 0.001,
        "final_answer": 0.0,
    }


@pytest.mark.parametrize(("stated", "sent"), [(None, False), (0.001, True)])
async def test_a_budget_has_to_pay_for_the_search_too(stated: float | None, sent: bool) -> None:
    web = Search(price=Price(per_call=0.5))
    seek = Expert(ScriptedExpert("q"), name="seek", role="search", retriever=web)
    assert seek.spec.least_dollars() == 0.5
    router = ScriptedRouter([("seek", {}), ("final_answer", {"answer": "x"})])
    catalog = None if stated is None else Catalog.of([ToolSpec(name=web.spec.name, price=Price(per_call=stated))])
    graph = create_orchestrator(router, [web, seek], catalog=catalog, budget=Budget(dollars=0.01)).compile()
    state = await graph.ainvoke(QUESTION)
    assert ("seek" in state["ledger"]["tools"]) is sent


async def test_a_person_is_asked_by_the_price_of_the_search_too() -> None:
    seek = Expert(
        ScriptedExpert("q"), name="seek", role="search", retriever=Search(price=Price(per_call=0.5)), price=Price()
    )
    most = most_dollars(seek.spec, None, [])
    assert most is not None
    assert most >= 0.5


async def test_an_experts_own_retriever_is_not_priced_as_another_line_of_its_name() -> None:
    own = Search(price=Price(per_call=0.01))
    seek = Expert(ScriptedExpert("q"), name=own.spec.name, role="search", retriever=own, price=Price(per_call=0.5))
    router = ScriptedRouter([(own.spec.name, {}), ("final_answer", {"answer": "x"})])
    state = await create_orchestrator(router, [seek]).compile().ainvoke(QUESTION)
    assert state["ledger"]["dollars"] == pytest.approx(0.51)


@pytest.mark.parametrize(
    ("error", "known", "uncertain"),
    [(TimeoutError("lost"), 0.0, 0.5), (ConnectionRefusedError("never sent"), 0.0, 0.0)],
)
async def test_a_search_of_an_expert_that_was_lost_is_uncertain(
    error: Exception, known: float, uncertain: float
) -> None:
    class Lost(Search):
        async def run(self, request: Request) -> Result:
            raise error

    web = Lost(price=Price(per_call=0.5), limits=Limits(retries=0))
    seek = Expert(ScriptedExpert("q"), name="seek", role="search", retriever=web, limits=Limits(retries=0))
    router = ScriptedRouter([("seek", {}), ("final_answer", {"answer": "x"})])
    state = await create_orchestrator(router, [seek]).compile().ainvoke(QUESTION)
    account = state["ledger"]["tools"]["seek"]
    assert (account["dollars"], account["uncertain_dollars"]) == (known, uncertain)


# What it is to the catalog.


@pytest.mark.parametrize(("role", "terminal"), [("answer", True), ("chat", False)])
def test_spec_of_an_expert(role: Any, terminal: bool) -> None:
    spec = Expert(ScriptedExpert("x"), name="e", role=role, price=Price(input=1.0)).spec
    assert (spec.name, spec.kind, spec.role, spec.terminal, spec.price.input) == ("e", "expert", role, terminal, 1.0)
    assert spec.description


def test_fields_of_the_spec_win_over_what_the_model_says() -> None:
    given = Expert(ScriptedExpert("x"), name="e", terminal=False, description="mine", provider="other").spec
    assert (given.terminal, given.description, given.provider) == (False, "mine", "other")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"role": "oracle"}, "role = 'oracle'; expected one of answer, code, search, chat"),
        ({"role": "search"}, "needs retriever="),
        ({"role": "search", "retriever": Expert(ScriptedExpert("x"), name="y")}, "one required argument"),
    ],
)
def test_a_wrong_expert_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Expert(ScriptedExpert("x"), name="e", **options)


async def test_an_expert_reads_the_conversation_before_the_question() -> None:
    prompts: list[str] = []

    def answer(prompt: str) -> str:
        prompts.append(prompt)
        return "<answer>dry</answer>"

    graph = create_orchestrator(
        ScriptedRouter([("expert", {})], stateless=True), [Expert(ScriptedExpert(answer), name="expert")]
    ).compile(checkpointer=InMemorySaver())
    thread: RunnableConfig = {"configurable": {"thread_id": "1"}}
    await graph.ainvoke({"messages": [("user", "Weather in Bern?")]}, thread)
    await graph.ainvoke({"messages": [("user", "And in Basel?")]}, thread)
    assert prompts[0] == "Question:\nWeather in Bern?"
    assert prompts[1] == "Conversation so far:\nhuman: Weather in Bern?\nai: dry\n\nQuestion:\nAnd in Basel?"


async def test_of_a_long_conversation_an_expert_reads_what_is_newest() -> None:
    model = ScriptedExpert("<answer>dry</answer>")
    graph = create_orchestrator(ScriptedRouter([("expert", {})]), [Expert(model, name="expert")]).compile()
    said = [f"({n:02}){'x' * 900}({n:02})" for n in range(20)]
    await graph.ainvoke({"messages": [*map(HumanMessage, said), HumanMessage("And in Basel?")]})
    (prompt,) = (messages[-1].text for messages in model.prompts)
    whole = [text in prompt for text in said]
    named = [f"({n:02})" in prompt for n in range(20)]
    assert sum(whole) == 8 and whole == sorted(whole)
    assert sum(named) <= 9 and named == sorted(named)


async def test_of_a_long_message_an_expert_reads_beginning_and_end() -> None:
    model = ScriptedExpert("<answer>dry</answer>")
    graph = create_orchestrator(ScriptedRouter([("expert", {})]), [Expert(model, name="expert")]).compile()
    said = [HumanMessage("old"), AIMessage(f"begin{'x' * 20_000}end"), HumanMessage("And in Basel?")]
    await graph.ainvoke({"messages": said})
    shown, _, _ = model.prompts[0][-1].text.partition("\n\nQuestion:")
    assert shown.startswith("Conversation so far:\nai: beginxxx") and shown.endswith("xxxend")
    assert "characters cut" in shown and len(shown) < 8_200
