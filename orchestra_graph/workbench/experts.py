"""The experts: programs behind LangChain's chat model interface.

They read the same text as a language model would, do real work within the limits of `SKILLS`, and count their tokens.
Their latency is modelled from the catalog's p50 and p95 and reported to the meter; nobody sleeps.
"""

from __future__ import annotations

import hashlib
import math
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from orchestra_graph.catalog import Catalog, Latency, ToolSpec
from orchestra_graph.meter import report
from orchestra_graph.text import estimate_tokens
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.expert import Expert
from orchestra_graph.workbench.database import Database
from orchestra_graph.workbench.knowledge import KnowledgeBase, render
from orchestra_graph.workbench.skills import SKILLS, Skill
from orchestra_graph.workbench.tasks import Desk, read
from orchestra_graph.workbench.tasks.lookup import Chain, follow
from orchestra_graph.workbench.world import World

_PROMPT = re.compile(
    r"(?:Conversation so far:\n.*\n\n)?"
    r"Question:\n(?P<question>.*?)(?:\n\nEvidence:\n(?P<evidence>.*?))?(?:\n\nRequest:\n.*)?",
    re.DOTALL,
)
_FINDING = re.compile(r"(?:^|\n\n)\[\d+\] \S+ \{.*\}\n")
_OUTPUT = re.compile(r"```output\n(.*?)\n```", re.DOTALL)
_Z95 = NormalDist().inv_cdf(0.95)

_LOST = "I cannot make out what is asked here."
_OUTSIDE = "This is a task of the kind {family}, which is outside my field."
_NO_PROGRAM = '```python\nraise SystemExit("No program of mine helps with this.")\n```'


@dataclass(frozen=True)
class Prompt:
    """What an expert reads."""

    question: str
    evidence: tuple[str, ...] = ()
    """Contents, oldest first."""


def read_prompt(text: str) -> Prompt:
    """Take apart what `orchestra_graph.tools.expert.prompt_text` put together; other text is all question."""
    match = _PROMPT.fullmatch(text)
    if match is None:
        return Prompt(text.strip())
    return Prompt(match["question"], tuple(_FINDING.split(match["evidence"] or "")[1:]))


class Program(BaseChatModel):
    """Base of the experts."""

    latency: Latency
    """Modelled seconds of one reply."""

    @abstractmethod
    def reply(self, prompt: Prompt) -> str:
        """Do the work."""

    @property
    def _llm_type(self) -> str:
        return "workbench"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        text = messages[-1].text
        reply = self.reply(read_prompt(text))
        report(seconds=modelled_seconds(self.latency, text))
        sent, wrote = estimate_tokens(messages), estimate_tokens(reply)
        usage = UsageMetadata(input_tokens=sent, output_tokens=wrote, total_tokens=sent + wrote)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(reply, usage_metadata=usage))])

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        # A few milliseconds of work: less than a thread would cost.
        return self._generate(messages, stop, **kwargs)


class Answerer(Program):
    """Answers within its skill; beyond it, declines or is wrong, as the family has it."""

    skill: Skill
    database: Database | None = None
    """The run's customer records, for those who may touch them."""

    def reply(self, prompt: Prompt) -> str:
        """Working and `<answer>`, or why there is none."""
        found = read(prompt.question)
        if found is None:
            return _LOST
        family, problem = found
        if self.skill.quotes and family.code(problem) is not None:
            output = last_output(prompt.evidence)
            if output is not None:
                return f"The program in the evidence printed the result.\n<answer>{output}</answer>"
        if family.name not in self.skill.limits:
            return _OUTSIDE.format(family=family.name)
        working = family.solve(problem, self.skill.limits[family.name], Desk(prompt.evidence, self.database))
        return working.text if working.answer is None else f"{working.text}\n<answer>{working.answer}</answer>"


class CodeWriter(Program):
    """Writes a program that prints the answer; `Expert` runs it."""

    skill: Skill

    def reply(self, prompt: Prompt) -> str:
        """A Python fence."""
        found = read(prompt.question)
        code = found[0].code(found[1]) if found and found[0].name in self.skill.limits else None
        return _NO_PROGRAM if code is None else f"```python\n{code}\n```"


class QueryWriter(Program):
    """Writes a query for the next document that a look-up needs; for any other question, the question itself."""

    def reply(self, prompt: Prompt) -> str:
        """One line."""
        found = read(prompt.question)
        if found is None or not isinstance(found[1], Chain):
            return " ".join(prompt.question.split())
        return follow(found[1], prompt.evidence)[-1]


class DocumentSearch(Tool):
    """The knowledge base as a tool of its own; the search expert sends its queries here."""

    def __init__(self, knowledge: KnowledgeBase) -> None:
        self._knowledge = knowledge
        query = {"type": "string", "description": "Words to look for."}
        parameters = {"type": "object", "properties": {"query": query}, "required": ["query"]}
        self.spec = ToolSpec(name="documents", kind="search", parameters=parameters)

    async def run(self, request: Request) -> Result:
        """The best documents for the query."""
        documents = self._knowledge.search(request.args["query"])
        return Result(render(documents), artifacts=[document.title for document in documents])


def build_tools(world: World, catalog: Catalog, identity: Mapping[str, str]) -> list[Tool]:
    """The tools of a catalog, bound to one run's world.

    Args:
        world: Knowledge base, customer records and sandbox.
        catalog: Names, descriptions, prices and latencies.
        identity: For each name in the catalog, which expert of `SKILLS` it is.
    """
    return [_build(world, spec, identity[name]) for name, spec in catalog.tools.items()]


def _build(world: World, spec: ToolSpec, expert: str) -> Expert:
    skill = SKILLS[expert]
    match spec.role:
        case "code":
            tool = Expert(
                CodeWriter(latency=spec.latency, skill=skill), name=spec.name, role="code", sandbox=world.sandbox
            )
        case "search":
            documents = DocumentSearch(world.knowledge)
            tool = Expert(QueryWriter(latency=spec.latency), name=spec.name, role="search", retriever=documents)
        case _:
            database = world.database if "records" in skill.limits else None
            tool = Expert(Answerer(latency=spec.latency, skill=skill, database=database), name=spec.name)
    tool.spec = spec
    return tool


def modelled_seconds(latency: Latency, text: str) -> float:
    """Seconds from the log-normal distribution with this median and 95th percentile; always the same for a text."""
    if not latency.p50 or latency.p95 <= latency.p50:
        return latency.p50
    digest = hashlib.sha256(text.encode()).digest()
    share = (int.from_bytes(digest[:6]) + 0.5) / 2**48
    return latency.p50 * math.exp(math.log(latency.p95 / latency.p50) * NormalDist().inv_cdf(share) / _Z95)


def last_output(evidence: Sequence[str]) -> str | None:
    """What the last program in the evidence printed; None if there is none or it failed."""
    outputs = [output for text in evidence for output in _OUTPUT.findall(text)]
    return outputs[-1] if outputs and "[exit code" not in outputs[-1] else None
