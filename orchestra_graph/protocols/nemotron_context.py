"""What the experts' calls have brought, as the released checkpoint and its experts read it: documents, then code.

Everything is cut by the served model's tokens and keeps its end, so the newest of it and the best documents last. What
has passed a cut, shortened or not, is in the release what the tokenizer decodes: composed characters (NFC), and none of
the model's special tokens. Tags such as `<think>`, which the tokenizer decodes too, stay; in a user message they are
text, to the chat template as well.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestra_graph.catalog import Catalog, Limits, Role
from orchestra_graph.text import clean
from orchestra_graph.tokens import Tokenizer
from orchestra_graph.turns import Turn

DOCUMENTS: Final = "Documents:\n"
"""Stands before the documents, whatever of them a cut has left. Literal."""

SEPARATOR: Final = "\npython code and execution outputs:\n"
"""Stands between documents and code in what the router reads; experts read them without it. Literal."""

CODE: Final = "```python\n{code}\n```\n\n```output\n{output}\n```\n\n"
"""One program and what it printed. Literal."""

FENCE: Final = "```\n"
"""Put before code of which a cut has taken the opening fence. Literal."""

_SPECIAL: Final = re.compile(
    r"<\|(?:endoftext|im_start|im_end|(?:object_ref|box|quad|vision)_(?:start|end)|(?:vision|image|video)_pad)\|>"
)
"""Special tokens of Qwen3: what ends a message or opens another one."""


@dataclass(frozen=True, slots=True)
class Brought:
    """What the turns of a run brought."""

    documents: Sequence[str]
    """Texts without repetitions; within a search the best stands last, so that it survives the cut."""
    code: str
    """All programs that printed something, with what they printed."""


def brought(turns: Mapping[str, Turn], catalog: Catalog) -> Brought:
    """Gather what experts of the roles `search` and `code` brought, oldest first; errors brought nothing.

    A search's artifacts are `{"text"}`, best first; those of code are `{"code", "output"}`. Others are passed over.
    """
    documents: dict[str, None] = {}
    code: list[str] = []
    for role, artifacts in _artifacts(turns, catalog):
        if role == "search":
            documents.update(dict.fromkeys(a["text"] for a in reversed(artifacts) if _has(a, "text")))
        elif role == "code":
            code += [CODE.format(**a) for a in artifacts if _has(a, "code", "output") and a["output"].strip()]
    return Brought(list(documents), "".join(code))


def _artifacts(turns: Mapping[str, Turn], catalog: Catalog) -> Iterator[tuple[Role, Sequence[Any]]]:
    """What each call brought, with the role of the expert that answered it."""
    for turn in turns.values():
        for call in turn["decision"]["calls"]:
            outcome = turn["outcomes"].get(call["id"])
            if outcome is None or outcome["error"]:
                continue
            spec = catalog.tools.get(outcome.get("by", call["tool"]))
            if spec is not None and spec.kind == "expert":
                yield spec.role, outcome.get("artifacts", ())


def _has(artifact: Any, *keys: str) -> bool:
    return isinstance(artifact, dict) and all(isinstance(artifact.get(key), str) for key in keys)


def numbered(documents: Sequence[str], form: str, characters: int | None) -> str:
    """The documents one after the other, counted from 1.

    Args:
        documents: Their texts.
        form: One of them, with the fields `i` and `text`.
        characters: Length to which each is cut; None leaves them whole.
    """
    return "".join([form.format(i=i, text=text[:characters]) for i, text in enumerate(documents, 1)])


def cut(text: str, tokens: int, tokenizer: Tokenizer) -> str:
    """The last tokens of a text, as they are decoded."""
    return _SPECIAL.sub("", unicodedata.normalize("NFC", tokenizer.last(text, tokens)))


def cut_code(code: str, tokens: int, tokenizer: Tokenizer) -> str:
    """The last tokens of the code, within a fence again where the cut took it."""
    code = cut(code, tokens, tokenizer)
    return FENCE + code if code and not code.startswith("```") else code


def without_special(text: str) -> str:
    """A text in which special tokens are broken: those that were not cut, or that a cut has put together."""
    return _SPECIAL.sub(lambda token: f"< {token[0][1:]}", clean(text))


def for_expert(found: Brought, limits: Limits, form: str, tokens: int, tokenizer: Tokenizer) -> str:
    """Documents and code as an expert is shown them.

    Args:
        found: What the turns brought.
        limits: The expert's.
        form: See `numbered`.
        tokens: Room for documents and code together.
        tokenizer: Measures them.
    """
    documents = numbered(found.documents, form, limits.document_characters)
    code = found.code
    if limits.code_tokens is not None:
        code = cut_code(code, limits.code_tokens, tokenizer)
    return (DOCUMENTS if documents else "") + cut(documents + code, max(0, tokens), tokenizer)
