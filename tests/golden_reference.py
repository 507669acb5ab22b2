"""The question protocol of the released checkpoint, written down slowly, sentence by sentence; writes golden files.

    python tests/golden_reference.py        # writes the requests of the long episodes, checks those written by hand

It is a second reading of the specification, independent of the package: it imports nothing of it. The quoted sentences
are the specification's own; what they leave open is decided in `tests/golden/README.md`. It tokenises every text whole
at every turn.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.golden_episodes import TOKENIZER, calls_of, episodes, read, requests_of, shown, text_of

FUNCTIONS = {
    "enhance_reasoning": ["reasoner-1", "reasoner-2", "reasoner-3"],
    "answer": ["answer-1", "answer-2", "answer-3", "answer-4", "answer-math-1", "answer-math-2"],
    "search": ["search-1", "search-2", "search-3"],
}
"""'Three tools, in this order: `enhance_reasoning`, `answer`, `search`', and the table of aliases."""

SYSTEM = "You are good at using tools."
SEPARATOR = "\npython code and execution outputs:\n"


def byte_of_sign() -> dict[str, int]:
    """The signs in which a byte-level vocabulary writes bytes: printable ones stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


class Cutter:
    """Counts and cuts with the plain tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._signs = byte_of_sign()
        self._added = tokenizer.get_added_tokens_decoder()

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def last(self, text: str, tokens: int) -> str:
        """'each cut keeping the LAST n tokens of the Qwen3 tokenizer', never a broken character."""
        kept = self._tokenizer.encode(text, add_special_tokens=False).ids[-tokens:]
        pieces = [self._bytes(token) for token in kept if not (token in self._added and self._added[token].special)]
        while pieces and 0x80 <= pieces[0][0] <= 0xBF:  # a token that begins in the middle of a character
            del pieces[0]
        return b"".join(pieces).decode()

    def _bytes(self, token: int) -> bytes:
        """What a token stands for."""
        if token in self._added:
            return str(self._added[token].content).encode()
        return bytes(self._signs[sign] for sign in self._tokenizer.id_to_token(token) or "")


def clean(text: str) -> str:
    """A lone surrogate, which no request can hold, becomes U+FFFD."""
    return "".join("\ufffd" if 0xD800 <= ord(character) <= 0xDFFF else character for character in text)


def documents_text(variant: str, documents: list[str]) -> str:
    r"""'documents: `Doc {i}: {text} ...\n\n` with the first 1,200 characters each (HLE), `Doc {i}: {text}\n\n` with
    4,000 (FRAMES)'."""
    if variant == "hle":
        return "".join(f"Doc {i}: {text[:1200]} ...\n\n" for i, text in enumerate(documents, 1))
    return "".join(f"Doc {i}: {text[:4000]}\n\n" for i, text in enumerate(documents, 1))


def code_text(pieces: list[tuple[str, str]]) -> str:
    """'a python fence with the code, blank line, an output fence with what it printed, blank line'."""
    return "".join(f"```python\n{code}\n```\n\n```output\n{output}\n```\n\n" for code, output in pieces)


def context(variant: str, problem: str, documents: list[str], pieces: list[tuple[str, str]], cutter: Cutter) -> str:
    """'Context, built from what the turns brought'."""
    # "Limit: HLE 27,000 minus the problem's tokens"; "FRAMES 24,000"
    limit = 27_000 - cutter.count(problem) if variant == "hle" else 24_000
    docs, code = documents_text(variant, documents), code_text(pieces)
    uncut = cutter.count(code)
    # "cut to 12,000; if the cut lost the opening fence, a fence line is put before it"
    code = cutter.last(code, 12_000)
    if code and not code.startswith("```"):
        code = "```\n" + code
    # "where code's uncut length is below the limit, ...; else code alone"
    if uncut >= limit:
        return code
    # "the separator only when there is code" (HLE), "and the separator always" (FRAMES)
    separator = SEPARATOR if code or variant == "frames" else ""
    # "documents, then separator, then code, together cut to the limit, with `Documents:\n` before it if there are
    # documents"
    together = cutter.last(docs + separator + code, limit)
    return "Documents:\n" + together if docs else together


def user(variant: str, problem: str, documents: list[str], pieces: list[tuple[str, str]], cutter: Cutter) -> str:
    r"""'User, HLE, literal frame: ... (with that stray apostrophe); FRAMES: the same without the apostrophe'."""
    problem = clean(problem)
    shown = context(variant, problem, documents, pieces, cutter)
    text = f"Problem: {problem}\n\n{shown}\n\nChoose an appropriate tool."
    return text + "'" if variant == "hle" else text


def tools(variant: str, documents: list[str]) -> list[str]:
    """'In FRAMES `search` is hidden once there are documents.'"""
    return [name for name in FUNCTIONS if not (variant == "frames" and documents and name == "search")]


def executed(reply: dict[str, Any]) -> str | None:
    """Alias of the call that is executed: 'Only the first valid call of a reply is executed.'"""
    for name, arguments in calls_of(reply):
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError:
                continue
        alias = arguments.get("model") if isinstance(arguments, dict) else None
        if isinstance(alias, str) and alias in FUNCTIONS.get(name, ()):
            return alias
    return None


def bring(brings: dict[str, Any], documents: list[str], pieces: list[tuple[str, str]]) -> None:
    """'the results are deduplicated and appended in reverse, best last'; 'stdout is added if not empty'."""
    for document in reversed(brings.get("documents", ())):
        text = clean(text_of(document["text"] if isinstance(document, dict) and "text" in document else document))
        if text not in documents:
            documents.append(text)
    if "code" in brings and text_of(brings["output"]).strip():
        pieces.append((clean(text_of(brings["code"])), clean(text_of(brings["output"]))))


def requests(episode: dict[str, Any], cutter: Cutter) -> list[dict[str, Any]]:
    """What the router is sent in an episode."""
    variant, problem = episode["variant"], text_of(episode["problem"])
    documents: list[str] = []
    pieces: list[tuple[str, str]] = []
    found = []
    for turn in episode["turns"]:
        found.append(
            {
                "system": SYSTEM,
                "user": shown(user(variant, problem, documents, pieces, cutter)),
                "tools": tools(variant, documents),
                "temperature": 1,
                "max_tokens": 12_000,
            }
        )
        assert turn.get("executes") == executed(turn["reply"]), (episode["about"], turn)
        if turn.get("executes"):
            bring(turn["brings"], documents, pieces)
    return found


def main() -> None:
    """Write the requests of the long episodes; say of those written by hand whether this reading agrees."""
    cutter = Cutter(Tokenizer.from_file(str(TOKENIZER)))
    for path in episodes("nemotron_qa"):
        episode = read(path)
        found = requests(episode, cutter)
        if episode["by"] == "hand":
            print(f"{path.name}: by hand, {'agrees' if requests_of(episode) == found else 'DIFFERS'}")
            continue
        written = json.dumps({**episode, "requests": found}, indent=1, ensure_ascii=False) + "\n"
        path.write_text(written, encoding="utf-8")
        print(f"{path.name}: written, {len(found)} requests")


if __name__ == "__main__":
    main()
