"""What the released checkpoint reads of a question's run, and what becomes of its replies."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra_graph.catalog import Catalog, Limits, ToolSpec
from orchestra_graph.errors import ConfigError
from orchestra_graph.graph import create_orchestrator
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.protocols.base import Situation
from orchestra_graph.protocols.nemotron_qa import NemotronQA, VariantName
from orchestra_graph.testing import ScriptedExpert, ScriptedRouter
from orchestra_graph.tokens import Tokenizer
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.expert import Expert
from orchestra_graph.tools.sandbox import Execution
from orchestra_graph.turns import Turn
from tests.qa_runs import (
    CATALOG,
    HLE_END,
    SEPARATOR,
    TOKENIZER,
    context,
    found,
    piece,
    ran,
    situation,
    turn,
    user,
    view,
)

# What is read.


def test_the_first_turn() -> None:
    shown = view(situation())
    assert [(m.type, m.text) for m in shown.messages] == [
        ("system", "You are good at using tools."),
        ("human", "Problem: Why?\n\n\n\nChoose an appropriate tool.'"),
    ]
    assert user(situation(), "frames") == f"Problem: Why?\n\n{SEPARATOR}\n\nChoose an appropriate tool."


def test_the_training_texts() -> None:
    shown = view(situation(), training=True)
    assert shown.messages[0].text == "You are good at using tools. "
    assert shown.messages[1].text == "Problem: Why?\n\n\n\nChoose an approriate tool."


def test_documents_stand_in_reverse_counted_from_one_and_once() -> None:
    at = situation(found(0, "best", "worse", "worst"), found(1, "new", "worse", "newer"))
    docs = ["worst", "worse", "best", "newer", "new"]
    assert context(user(at)) == "Documents:\n" + "".join(f"Doc {i}: {d} ...\n\n" for i, d in enumerate(docs, 1))
    assert context(user(at, "frames")) == (
        "Documents:\n" + "".join(f"Doc {i}: {d}\n\n" for i, d in enumerate(docs, 1)) + SEPARATOR
    )


@pytest.mark.parametrize(("variant", "length", "mark"), [("hle", 1200, " ..."), ("frames", 4000, "")])
def test_a_document_is_cut(variant: VariantName, length: int, mark: str) -> None:
    at = situation(found(0, "x" * 5000))
    assert context(user(at, variant)).startswith(f"Documents:\nDoc 1: {'x' * length}{mark}\n\n")


def test_code_with_its_output_stands_behind_the_documents() -> None:
    at = situation(ran(0, "print(1)", "1\n"), found(1, "fact"), ran(2, "print(2)", "2"))
    code = piece("print(1)", "1\n") + piece("print(2)", "2")
    assert context(user(at)) == f"Documents:\nDoc 1: fact ...\n\n{SEPARATOR}{code}"
    assert context(user(situation(ran(0, "print(1)", "1\n")))) == SEPARATOR + piece("print(1)", "1\n")


def test_what_brought_nothing_is_not_shown() -> None:
    at = situation(
        ran(0, "pass", " \n"),
        found(1, "lost", error=True),
        ran(2, "pass", "lost", error=True),
        turn(3, "answer-1", [{"text": "lost", "code": "lost", "output": "lost"}]),
        turn(4, "search-1", ["lost", {"id": 1}, {"text": None}]),
        turn(5, "reasoner-1", [{"code": "lost"}]),
        found(6, "lost", tool="gone"),
    )
    invalid: Turn = {**turn(7, "search-1", []), "decision": {"calls": [], "reason": "lost", "by": "router"}}
    assert user(situation(*at.turns.values(), invalid)) == user(situation())


def test_a_fallback_brings_what_its_own_role_brings() -> None:
    at = situation(found(0, "fact", tool="reasoner-1", by="search-2"))
    assert context(user(at)) == "Documents:\nDoc 1: fact ...\n\n"


def test_frames_hides_search_once_there_are_documents() -> None:
    def names(at: Situation, variant: VariantName) -> list[str]:
        return [function["function"]["name"] for function in view(at, variant).tools]

    every = ["enhance_reasoning", "answer", "search"]
    assert names(situation(), "frames") == names(situation(found(0)), "frames") == every
    assert names(situation(found(0, "fact")), "frames") == every[:2]
    assert names(situation(found(0, "fact")), "hle") == every


def test_the_functions_are_the_same_list_for_the_same_catalog() -> None:
    protocol = NemotronQA(TOKENIZER, "frames")
    assert protocol.view(situation()).tools is protocol.view(situation(ran(0, "a", "b"))).tools


@pytest.mark.parametrize("text", ["{problem} %s {0} \\1 {{", "a\n\nb  ", "{context}"])
def test_signs_in_texts_mean_nothing(text: str) -> None:
    at = situation(found(0, text), ran(1, text, text), question=text)
    assert context(user(at), text) == f"Documents:\nDoc 1: {text} ...\n\n{SEPARATOR}{piece(text, text)}"


def test_no_text_can_end_the_message_that_it_stands_in() -> None:
    nested = "<|im_<|im_end|>end|>"
    at = situation(found(0, f"a{nested}"), ran(1, f"b{nested}", f"c{nested}"), question=f"q{nested}")
    text = user(at)
    assert "<|im_end|>" not in text
    assert text.startswith("Problem: q<|im_< |im_end|>end|>\n\nDocuments:\nDoc 1: a< |im_end|> ...\n\n")


def test_tags_that_are_text_stay() -> None:
    assert "Doc 1: <think>a</think> <tool_call> ..." in user(situation(found(0, "<think>a</think> <tool_call>")))


def test_lone_surrogates_are_replaced() -> None:
    text = user(situation(found(0, "a\ud800b"), question="\udfff"))
    assert text.startswith("Problem: \ufffd\n\nDocuments:\nDoc 1: a\ufffdb ...")
    text.encode()


def test_the_view_tells_its_length() -> None:
    short, long = view(situation()), view(situation(found(0, "word " * 200)))
    assert 250 <= long.tokens - short.tokens <= 300
    assert short.tokens > 500


# What experts are shown.


def brief(at: Situation, spec: ToolSpec) -> str:
    shown = NemotronQA(TOKENIZER).brief(at, spec)
    assert shown is not None
    [message] = shown
    assert message["role"] == "user"
    return str(message["content"])


def limited(**limits: Any) -> ToolSpec:
    return ToolSpec(name="e", kind="expert", limits=Limits(**limits))


def test_an_expert_reads_documents_then_code_then_the_problem() -> None:
    at = situation(found(0, "x" * 1300), ran(1, "print(1)", "1"))
    assert brief(at, limited()) == (
        f"Documents:\nDoc 1: {'x' * 1300}\n\n{piece('print(1)', '1')}".strip() + "\n\nProblem:\nWhy?"
    )
    assert f"Doc 1: {'x' * 1000}\n\n" in brief(at, limited(document_characters=1000))
    assert brief(situation(), limited()) == "Problem:\nWhy?"


def test_an_experts_code_and_context_are_cut() -> None:
    at = situation(found(0, "word " * 300), ran(1, "print(1)\n" * 100, "1"))
    code = TOKENIZER.last(piece("print(1)\n" * 100, "1"), 50)
    shown = brief(at, limited(code_tokens=50, context_tokens=10_000))
    assert shown.endswith(f"\n\n```\n{code.strip()}\n\nProblem:\nWhy?")
    short = brief(at, limited(code_tokens=50, context_tokens=150))
    body = short.removeprefix("Documents:\n").removesuffix("\n\nProblem:\nWhy?")
    assert 140 <= TOKENIZER.count(body) + TOKENIZER.count("Why?") <= 150
    assert brief(at, limited(context_tokens=1)) == "Documents:\n\nProblem:\nWhy?"


def test_control_tokens_in_what_experts_read_are_broken() -> None:
    text = brief(situation(found(0, "<|im_end|><tool_call>"), question="[INST]"), limited())
    assert not any(token in text for token in ("<|im_end|>", "<tool_call>", "[INST]"))


# What it refuses.


CALC = ToolSpec(name="calc")
ANSWER = CATALOG.tools["answer-1"]
NEEDY = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([CATALOG.tools["search-1"]], "no expert of role answer"),
        ([ANSWER, CALC], r"calc \(kind function, role answer\) cannot be called; .*leave it out"),
        ([ANSWER, ToolSpec(name="c", kind="expert", role="chat")], "c .kind expert, role chat. cannot be called"),
        ([ANSWER.model_copy(update={"parameters": NEEDY})], "answer-1 requires q, but experts are called without"),
        ([ANSWER.model_copy(update={"terminal": False})], "role = 'answer' and terminal = False"),
    ],
)
def test_a_catalog_that_does_not_fit_is_refused(specs: list[ToolSpec], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        NemotronQA(TOKENIZER).check(Catalog.of(specs))


WITH_SEARCH = Catalog.of([ANSWER, ToolSpec(name="wiki", kind="search", parameters=NEEDY)])


@pytest.mark.parametrize(("catalog", "functions"), [(CATALOG, 3), (WITH_SEARCH, 1)])
def test_catalogs_that_fit_are_shown(catalog: Catalog, functions: int) -> None:
    protocol = NemotronQA(TOKENIZER)
    protocol.check(catalog)
    assert len(protocol.view(Situation("?", catalog, Preferences(), Budget())).tools) == functions


@pytest.mark.parametrize("text", ["no JSON", "{}", '[{"type": "function"}]', "[1]"])
def test_functions_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"functions (are no tools file|lack).*; fix: import"):
        NemotronQA(TOKENIZER, functions=text).check(CATALOG)


def test_a_protocol_waits_where_its_tokenizer_does() -> None:
    class Waiting(Tokenizer):
        blocks = True

        def count(self, text: str) -> int:
            return 0

        def last(self, text: str, tokens: int) -> str:
            return text

        def first(self, text: str, tokens: int) -> str:
            return text

    assert NemotronQA(Waiting()).blocks
    assert not NemotronQA(TOKENIZER).blocks


# In a graph.


class Wiki(Tool):
    """Finds the same three texts."""

    def __init__(self) -> None:
        self.spec = ToolSpec(name="wiki", kind="search", parameters=NEEDY)

    async def run(self, request: Request) -> Result:
        return Result("found", artifacts=[{"text": f"fact {n}"} for n in (1, 2, 3)])


class Sandbox:
    """Prints 42."""

    async def run(self, code: str, *, timeout: float = 10, stdin: str = "") -> Execution:
        assert timeout == 60.0
        return Execution(stdout="42\n", stderr="", exit_code=0)


async def test_a_run_through_the_graph() -> None:
    shown: dict[str, str] = {}

    def expert(name: str, reply: str, **options: Any) -> Expert:
        def answer(prompt: str) -> str:
            shown[name] = prompt
            return reply

        line = CATALOG.tools[name]
        return Expert(ScriptedExpert(answer), name=name, role=line.role, limits=line.limits, **options)

    router = ScriptedRouter(
        [
            "no call",
            [("search", {"model": "search-1"}), ("answer", {"model": "answer-1"})],
            ("enhance_reasoning", {"model": "reasoner-1"}),
            ("answer", {"model": "answer-1"}),
        ]
    )
    experts = [
        expert("search-1", "facts", retriever=Wiki()),
        expert("reasoner-1", "```python\nprint(42)\n```", sandbox=Sandbox()),
        expert("answer-1", "<answer>42</answer>"),
    ]
    catalog = CATALOG.restrict([e.spec.name for e in experts])
    graph = create_orchestrator(router, experts, catalog=catalog, protocol=NemotronQA(TOKENIZER)).compile()
    state = await graph.ainvoke({"messages": [("user", "Why?")]})
    documents = "Doc {}: fact 3{}\n\nDoc {}: fact 2{}\n\nDoc {}: fact 1{}\n\n"
    code = piece("\nprint(42)\n", "42\n")
    read = "Documents:\n" + documents.format(1, " ...", 2, " ...", 3, " ...")
    assert [messages[1].text for messages in router.prompts] == [
        f"Problem: Why?\n\n{text}{HLE_END}" for text in ("", "", read, f"{read}{SEPARATOR}{code}")
    ]
    assert shown == {
        "search-1": "Problem:\nWhy?",
        "reasoner-1": f"Documents:\n{documents.format(1, '', 2, '', 3, '').strip()}\n\nProblem:\nWhy?",
        "answer-1": f"Documents:\n{documents.format(1, '', 2, '', 3, '')}{code.strip()}\n\nProblem:\nWhy?",
    }
    assert (state["answer"], state["stopped_by"]) == ("42", "answer")
    assert [[c["tool"] for c in t["decision"]["calls"]] for t in state["turns"].values()] == [
        [],
        ["search-1"],
        ["reasoner-1"],
        ["answer-1"],
    ]
