"""Lengths and cuts of text that a model reads, and the neutralising of control tokens in it.

Left out: exact token counts, which need the model's own tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage

CHARACTERS_PER_TOKEN: Final = 4
"""Rule of thumb for English and code; used where no tokenizer is at hand."""

_SHORTEST_CUT: Final = 400
"""Characters below which a piece of an older text is not worth reading."""

_CUT_OFF: Final = frozenset({"length", "max_tokens"})
"""What providers call a reply that ended at the limit on its length."""

_WORDS: Final = (
    r"(?:\w{1,20}:)?(?:tool(?:calls?|responses?|results?)|think|[be]os)|tools?|functions?|functioncalls?|scratchpad|"
    r"escape|image|[se]op|(?-i:s|unk|pad|mask)|unused\d{1,4}"
)
"""Names without an underscore that stand alone between brackets; most other single words are HTML or types."""

_SNAKE: Final = r"(?:\w{1,20}:)?(?!\w{1,60}_t>)(?=\w{0,60}_)\w{1,60}"
"""Names with an underscore: HTML and most types have none, nearly all control tags do. C's types end in _t."""

_END: Final = r"(?:/?>|=|\s{1,8}[\w:.-]{1,40}=)"
_CONTROL: Final = re.compile(
    r"<(?=\uff5c|\|[^\s>]"  # <|im_start|>, <|turn>, and DeepSeek's with a full-width bar
    r"|[\w▁]{1,40}[|\uff5c]>"  # <turn|>
    rf"|/?(?:{_WORDS})>"
    rf"|/?(?:{_SNAKE}|function|functioncall|toolcall|parameter){_END}"
    r"|/?(?:\w{1,20}:)?(?:invoke|parameter|function_calls)[ >]"
    r"|</?SYS>>)"
    r"|\[(?=(?-i:/?(?:INST|TOOL_\w{1,20}|AVAILABLE_TOOLS|SYSTEM_PROMPT|MODEL_SETTINGS|ARGS|CALL_ID|THINK|IMG\w{0,10}|"
    r"PREFIX|MIDDLE|SUFFIX|g?MASK|sMASK|BOS|EOS|EOT|UNK|PAD|CLS|SEP))\])"
    r"|\[(?=e~\[)|\](?=~!?b[\[\]])",  # MiniMax
    re.IGNORECASE,
)
"""The opening bracket of what chat templates and tokenizers treat as one token or as a tool call."""


def estimate_tokens(content: Any) -> int:
    """Tokens of a text, a message, or any nesting of lists of them, by the length of their text; at least 1."""
    return _characters(content) // CHARACTERS_PER_TOKEN + 1


def _characters(content: Any) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, BaseMessage):
        calls = [*content.tool_calls, *content.invalid_tool_calls] if isinstance(content, AIMessage) else ()
        return _characters(content.content) + sum(_characters([call["name"], call["args"]]) for call in calls)
    if isinstance(content, list | tuple):
        return sum(map(_characters, content))
    if isinstance(content, dict):
        return sum(map(_characters, content.values()))
    return 0 if content is None else len(str(content))


def is_truncated(reply: AIMessage) -> bool:
    """Whether the model was stopped at its length limit."""
    metadata = reply.response_metadata
    why = metadata.get("finish_reason") or metadata.get("stop_reason")
    return isinstance(why, str) and why.lower() in _CUT_OFF


def cut(text: str, tokens: int) -> str:
    """Keep about `tokens` tokens: the first two thirds and the last third, with a mark that says what was cut."""
    limit = tokens * CHARACTERS_PER_TOKEN
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    return f"{text[:head]}\n[... {len(text) - limit:,} of {len(text):,} characters cut ...]\n{text[len(text) - tail :]}"


def newest_that_fit(texts: Iterable[str], tokens: int) -> list[str]:
    """Of texts from the newest back those that fit in about `tokens` tokens; the last of them may be cut."""
    room = tokens * CHARACTERS_PER_TOKEN
    kept: list[str] = []
    for text in texts:
        if kept and len(text) > room < _SHORTEST_CUT:
            break
        kept.append(cut(text, max(room, 0) // CHARACTERS_PER_TOKEN))
        room -= len(kept[-1])
    return kept


def neutralise(text: str) -> str:
    """Break everything in a text that a chat template could read as a control token or a tool call.

    A space goes between the bracket and its name, so that people and models still read the same words.
    """
    text = clean(text)
    if "<" not in text and "[" not in text and "]" not in text:
        return text
    return _CONTROL.sub(r"\g<0> ", text)


def neutralise_values(value: Any) -> Any:
    """JSON values with every text in them neutralised."""
    if isinstance(value, str):
        return neutralise(value)
    if isinstance(value, dict):
        return {neutralise(key): neutralise_values(item) for key, item in value.items()}
    return [neutralise_values(item) for item in value] if isinstance(value, list) else value


def clean(text: str) -> str:
    """Replace lone surrogates, which neither JSON nor any server accepts, by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
