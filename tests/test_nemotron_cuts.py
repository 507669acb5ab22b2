"""What the released checkpoint reads is cut as specified: documents, code and problem within their tokens.

Made with limits that short texts reach; the golden files have the real ones.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra_graph.protocols import nemotron_qa
from orchestra_graph.protocols.nemotron_qa import NemotronQA, VariantName
from orchestra_graph.tokens import FolderTokenizer
from tests.examples import examples
from tests.qa_runs import (
    SEPARATOR,
    TOKENIZER,
    context,
    found,
    piece,
    ran,
    situation,
    user,
)


def small(monkeypatch: pytest.MonkeyPatch, *, tokens: int, code: int = 50) -> None:
    monkeypatch.setattr(nemotron_qa, "CODE_TOKENS", code)
    variants = {name: replace(variant, tokens=tokens) for name, variant in nemotron_qa.VARIANTS.items()}
    monkeypatch.setattr(nemotron_qa, "VARIANTS", variants)


def test_the_end_of_the_documents_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, tokens=40)
    whole = "Doc 1: " + "word " * 50 + " ...\n\n"
    at = situation(found(0, "word " * 50))
    room = 40 - TOKENIZER.count("Why?")
    assert context(user(at)) == "Documents:\n" + TOKENIZER.last(whole, room)
    assert TOKENIZER.count(whole) > room


def test_the_problem_counts_in_hle_only(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, tokens=40)
    at = situation(found(0, "word " * 50), question="Why? " * 10)
    assert len(context(user(at), "Why? " * 10)) < len(context(user(situation(found(0, "word " * 50)))))
    frames = context(user(at, "frames"), "Why? " * 10)
    assert frames == context(user(situation(found(0, "word " * 50)), "frames"))


def test_code_loses_its_beginning_and_gets_a_fence_again(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, tokens=1000, code=30)
    text = piece("print(1)\n" * 30, "1")
    shown = TOKENIZER.last(text, 30)
    assert not shown.startswith("```")
    assert context(user(situation(ran(0, "print(1)\n" * 30, "1")))) == f"{SEPARATOR}```\n{shown}"


def test_code_that_is_cut_at_a_fence_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    tail = "```output\n1\n```\n\n"
    small(monkeypatch, tokens=1000, code=TOKENIZER.count(tail))
    shown = context(user(situation(ran(0, "print(1)", "1"))))
    assert shown == SEPARATOR + tail


def test_code_stands_alone_where_it_is_as_long_as_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    code = piece("print(1)\n" * 30, "1")
    length = TOKENIZER.count(code) + TOKENIZER.count("Why?")
    turns = found(0, "fact"), ran(1, "print(1)\n" * 30, "1")
    alone = "```\n" + TOKENIZER.last(code, 30)
    small(monkeypatch, tokens=length, code=30)
    assert context(user(situation(*turns))) == alone
    small(monkeypatch, tokens=length + 1, code=30)
    assert context(user(situation(*turns))) == f"Documents:\nDoc 1: fact ...\n\n{SEPARATOR}{alone}"


def test_a_problem_that_takes_all_the_room_leaves_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch, tokens=10, code=1000)
    question = "Why? " * 20
    at = situation(found(0, "fact"), ran(1, "a", "b"), question=question)
    assert context(user(at), question) == piece("a", "b")
    assert context(user(situation(found(0, "fact"), question=question)), question) == ""


TEXTS = st.text(st.sampled_from("ab \n`é日😀"), max_size=30)
EPISODES = st.lists(
    st.one_of(
        st.tuples(st.just("search-1"), st.lists(TEXTS, max_size=4)),
        st.tuples(st.just("reasoner-1"), st.tuples(TEXTS, TEXTS)),
    ),
    max_size=8,
)


def reference(episode: Any, question: str, variant: VariantName, tokens: int, code_tokens: int) -> str:
    """The specification, sentence by sentence, without reuse."""
    documents: list[str] = []
    code = ""
    for tool, brought in episode:
        if tool == "search-1":
            for text in brought[::-1]:
                if text not in documents:
                    documents.append(text)
        elif brought[1].strip():
            code += piece(*brought)
    shown = "".join(
        f"Doc {i}: {d[:1200]} ...\n\n" if variant == "hle" else f"Doc {i}: {d[:4000]}\n\n"
        for i, d in enumerate(documents, 1)
    )
    cut = TOKENIZER.last(code, code_tokens)
    if cut and not cut.startswith("```"):
        cut = "```\n" + cut
    limit = tokens - (TOKENIZER.count(question) if variant == "hle" else 0)
    if TOKENIZER.count(code) >= limit:
        return cut
    separator = SEPARATOR if cut or variant == "frames" else ""
    return ("Documents:\n" if documents else "") + TOKENIZER.last(shown + separator + cut, limit)


@settings(max_examples=examples(150), deadline=None)
@given(
    episode=EPISODES,
    variant=st.sampled_from(["hle", "frames"]),
    tokens=st.integers(0, 200),
    code_tokens=st.integers(1, 100),
    question=st.text("ab ", min_size=1, max_size=20),
)
def test_any_episode_reads_as_specified(
    episode: Any, variant: VariantName, tokens: int, code_tokens: int, question: str
) -> None:
    turns = [found(n, *b) if tool == "search-1" else ran(n, *b) for n, (tool, b) in enumerate(episode)]
    with pytest.MonkeyPatch.context() as patch:
        small(patch, tokens=tokens, code=code_tokens)
        text = user(situation(*turns, question=question), variant)
    assert context(text, question) == reference(episode, question, variant, tokens, code_tokens)


@settings(max_examples=examples(30), deadline=None)
@given(episodes=st.lists(EPISODES, min_size=2, max_size=3))
def test_runs_do_not_see_each_other(episodes: list[Any]) -> None:
    """One protocol serves interleaved runs as a fresh one serves each, and changes no turn."""
    shared = NemotronQA(FolderTokenizer(Path(__file__).parent / "data" / "tokenizer"))
    runs = [[found(n, *b) if t == "search-1" else ran(n, *b) for n, (t, b) in enumerate(e)] for e in episodes]
    before = copy.deepcopy(runs)
    for length in range(9):
        for run in runs:
            at = situation(*run[:length])
            assert shared.view(at).messages[1].text == user(at)
    assert runs == before
