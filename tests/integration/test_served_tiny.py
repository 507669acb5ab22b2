"""The router that ships, served by a real vLLM as the preset `tiny`: it says what it says in process."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra_graph import Budget, Preferences
from orchestra_graph.captures import CapturedMessage, logprob_of
from orchestra_graph.protocols.base import Situation, View
from orchestra_graph.protocols.scan import SKIP, TAKE, ScanProtocol
from orchestra_graph.routers.bundled import tiny_router
from orchestra_graph.workbench import Workbench
from tests.integration.serving import serving

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def views() -> list[View]:
    """All lines of a few tasks, and the longest prompt that the protocol writes."""
    bench = Workbench()
    episodes = [bench.sample(3, index, split="held_out") for index in range(3)]
    situations = [Situation(e.task.question, e.catalog, e.preferences, Budget(turns=5)) for e in episodes]
    long = Situation("\N{MUSICAL SYMBOL G CLEF}" * 2000, bench.catalog, Preferences(text="\u3042" * 2000), Budget())
    return [view for situation in (*situations, long) for _, view in ScanProtocol().views(situation)]


async def test_words_and_logprobs_are_those_of_the_router_in_process(vllm_python: Path, tmp_path: Path) -> None:
    local, said = tiny_router(), set()
    with serving("tiny", vllm_python, tmp_path / "server.log") as server:
        served = server.chat(temperature=0, max_tokens=1)
        for view in views():
            ours = await local.ainvoke(view.messages, max_tokens=1)
            theirs = await served.ainvoke(view.messages)
            assert isinstance(ours, CapturedMessage)
            assert isinstance(theirs, CapturedMessage)
            assert theirs.capture["prompt_token_ids"] == ours.capture["prompt_token_ids"]
            assert theirs.text == ours.text
            assert logprob_of(theirs) == pytest.approx(logprob_of(ours), abs=1e-4)
            said.add(ours.text)
    assert said == {TAKE, SKIP}
