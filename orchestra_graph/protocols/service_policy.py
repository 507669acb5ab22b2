"""The system text of service conversations: the policy, with word of experts where it speaks of human agents.

A router that hands over to experts must not promise a person, so each clause of a policy that does is replaced. Clauses
are found by what they name; where that finds too much or too little, give them as they stand in the policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

INSTRUCTIONS: Final = """\
You serve customers and keep to the <policy> below in everything you do.
Each turn is one of two things, never both:
- a message to the user,
- calls of tools, written as valid JSON."""
"""Stands in place of tau2's own instructions, which an agent of that package gives instead."""

HAND_OVER: Final = """\
You should hand over to an expert where you are not sure what to reply or which tool to call: make a tool call to \
call_expert and choose by how hard the request is, a strong expert for a tricky one and a cheaper one for a plain one. \
Weigh what the expert costs against how sure you are of doing it right yourself."""
"""Takes the place of clauses about human agents. What the release says there can be given instead."""

NOBODY: Final = "Nobody takes over from you: where the policy or the tools do not allow what the user asks, say so."
"""Takes their place for experts, where the domain has no tool that transfers."""

FORMAT: Final = (
    "  You are dedicated to provide the best service. Wrap thinking process between <think> </think>, message between "
    "<message> </message> and the tool call between <tool_call> </tool_call> ."
)
"""Literal, with the two spaces before it and the one before the full stop: the checkpoint saw it so."""

_TRANSFER: Final = re.compile(r"\bhuman agents?\b|\btransfer_to_human|\bplease hold on\b", re.IGNORECASE)
_LINE: Final = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)])?[ \t]*(?P<body>\S.*)$", re.MULTILINE)
_SENTENCE: Final = re.compile(r"\S.*?(?:[.!?][\"')\]]*(?=\s+[\"'(\[]?[A-Z0-9])|$)")
_HEADING: Final = re.compile(r"^(#+)[ \t].*$", re.MULTILINE)
_ITEMS: Final = re.compile(r"(?:\s*\n[ \t]*(?:[-*+]|\d+[.)])[ \t].*)+")
_NOTHING: Final = re.compile(r"\s*(?:(?:[-*+]|\d+[.)])[ \t]*)?")

Span = tuple[int, int]


def system_text(policy: str, instructions: str = INSTRUCTIONS) -> str:
    """Instructions and policy in the frame of tau2."""
    return f"<instructions>\n{instructions}\n</instructions>\n<policy>\n{policy}\n</policy>"


def replace_transfers(policy: str, paragraph: str, clauses: Sequence[str] | None = None) -> str:
    """Replace every clause about transferring the user to a human agent.

    A clause is a sentence that names one, with the items below it where it ends in a colon; and a section whose heading
    names one. Clauses that follow each other count as one.

    Args:
        policy: Text, usually Markdown.
        paragraph: What stands there instead.
        clauses: The clauses as they stand in the policy, replaced one after the other; None finds them.
    """
    if clauses is not None:
        for clause in clauses:
            policy = policy.replace(clause, paragraph)
        return policy
    for start, end in reversed(list(_joined(policy, sorted([*_sections(policy), *_sentences(policy)])))):
        policy = f"{policy[:start]}{paragraph}{policy[end:]}"
    return policy


def _sections(policy: str) -> Iterator[Span]:
    headings = list(_HEADING.finditer(policy))
    for n, heading in enumerate(headings):
        if _TRANSFER.search(heading[0]):
            after = (other.start() for other in headings[n + 1 :] if len(other[1]) <= len(heading[1]))
            end = next(after, len(policy))
            yield heading.start(), heading.start() + len(policy[heading.start() : end].rstrip())


def _sentences(policy: str) -> Iterator[Span]:
    for line in _LINE.finditer(policy):
        for sentence in _SENTENCE.finditer(policy, line.start("body"), line.end()):
            if not _TRANSFER.search(sentence[0]):
                continue
            items = _ITEMS.match(policy, sentence.end()) if sentence[0].endswith(":") else None
            yield sentence.start(), (items or sentence).end()


def _joined(policy: str, spans: Iterable[Span]) -> Iterator[Span]:
    """Spans in order, those that overlap or have nothing but space and a bullet between them as one."""
    open_span: Span | None = None
    for start, end in spans:
        if open_span is None:
            open_span = start, end
        elif start <= open_span[1] or _NOTHING.fullmatch(policy, open_span[1], start):
            open_span = open_span[0], max(end, open_span[1])
        else:
            yield open_span
            open_span = start, end
    if open_span is not None:
        yield open_span
