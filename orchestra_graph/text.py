"""Lengths and cuts of text that a model reads, and the neutralising of control tokens in it."""

from __future__ import annotations

import re
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage

CHARACTERS_PER_TOKEN: Final = 4
"""Rule of thumb for English and code; used where no tokenizer is at hand."""

_CONTROL: Final = re.compile(
    r"<(?=[|｜])"  # <|im_start|>, <|eot_id|>, <｜Assistant｜>
    r"|(?<=[|｜])>"  # the closing half
    r"|<(?=/?(?:tool_calls?|tool_responses?|tools?|think|s|unk|pad|bos|eos|start_of_turn|end_of_turn|function[^>]*)>)"
    r"|\[(?=/?(?:INST|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS|SYSTEM_PROMPT|ARGS|CALL_ID)\])",
    re.IGNORECASE,
)


def estimate_tokens(content: Any) -> int:
    """Tokens of a text, a message, or any nesting of lists of them, by the length of their text; at least 1."""
    return _characters(content) // CHARACTERS_PER_TOKEN + 1


def _characters(content: Any) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, BaseMessage):
        calls = content.tool_calls if isinstance(content, AIMessage) else ()
        return _characters(content.content) + sum(len(call["name"]) + _characters(call["args"]) for call in calls)
    if isinstance(content, list | tuple):
        return sum(map(_characters, content))
    if isinstance(content, dict):
        return sum(map(_characters, content.values()))
    return 0 if content is None else len(str(content))


def cut(text: str, tokens: int) -> str:
    """Keep about `tokens` tokens: the first two thirds and the last third, with a mark that says what was cut."""
    limit = tokens * CHARACTERS_PER_TOKEN
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    return f"{text[:head]}\n[... {len(text) - limit:,} of {len(text):,} characters cut ...]\n{text[len(text) - tail :]}"


def neutralise(text: str) -> str:
    """Break everything in a text that a chat template could read as a control token or a tool call.

    A space goes between the bracket and its name, so that people and models still read the same words.
    """
    text = clean(text)
    if "<" not in text and "[" not in text and ">" not in text:
        return text
    return _CONTROL.sub(lambda match: f"{match[0]} " if match[0] != ">" else " >", text)


def clean(text: str) -> str:
    """Replace lone surrogates, which neither JSON nor any server accepts, by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
