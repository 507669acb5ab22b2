"""What a service conversation's system text says in place of human agents."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra_graph.protocols.service_policy import FORMAT, HAND_OVER, NOBODY, replace_transfers, system_text

TRANSFER = (
    "Transfer the user to a human agent if and only if nothing else helps. To transfer, call transfer_to_human_agents, "
    "then send 'YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON.' to the user."
)


def test_the_frame_and_the_literal_ending() -> None:
    assert system_text("Be kind.", "Serve.") == (
        "<instructions>\nServe.\n</instructions>\n<policy>\nBe kind.\n</policy>"
    )
    assert FORMAT == (
        "  You are dedicated to provide the best service. Wrap thinking process between <think> </think>, message "
        "between <message> </message> and the tool call between <tool_call> </tool_call> ."
    )


@pytest.mark.parametrize(
    ("policy", "replaced"),
    [
        (f"# Rules\n\n{TRANSFER}\n\nBe kind.\n", "# Rules\n\nP\n\nBe kind.\n"),
        ("Be kind. If all fails, ask a human agent to help. Be brief.", "Be kind. P Be brief."),
        ("- Be kind.\n- Refunds go to human agents.\n- Be brief.", "- Be kind.\n- P\n- Be brief."),
        ("1. Refunds go to human agents.\n2. Returns go to human agents.\n3. Be brief.", "1. P\n3. Be brief."),
        ("## Human agents\n\nOnly if asked.\n- Call.\n\n## Refunds\n\nNever.", "P\n\n## Refunds\n\nNever."),
        ("### To a human agent\nOnly if asked.\n#### When\nSeldom.\n## Refunds", "P\n## Refunds"),
        ("Transfer to a human agent if:\n- it is late, or\n- it is early.\n\nBe kind.", "P\n\nBe kind."),
        ("Humans are agents of change. Please hold the line.", "Humans are agents of change. Please hold the line."),
        ("", ""),
    ],
)
def test_clauses_are_found_by_what_they_name(policy: str, replaced: str) -> None:
    assert replace_transfers(policy, "P") == replaced


def test_clauses_that_are_given_are_replaced_as_they_stand() -> None:
    policy = "Ask a human agent. Or a colleague. Or a colleague."
    assert replace_transfers(policy, "P", ["Or a colleague."]) == "Ask a human agent. P P"
    assert replace_transfers(policy, "P", []) == policy


def test_what_is_put_in_their_place_is_no_clause_itself() -> None:
    for paragraph in (HAND_OVER, NOBODY):
        assert replace_transfers(paragraph, "P") == paragraph


PLAIN = st.sampled_from(["Be kind.", "Refund at once!", "Is it late? Then wait.", "See section 4.2 first."])
CLAUSE = st.sampled_from([TRANSFER, "Ask human agents.", "Please hold on!"])
MARKS = st.sampled_from(["", "- ", "  * ", "2. "])
BREAKS = st.sampled_from(["\n", "\n\n"])


@given(st.lists(st.tuples(st.one_of(PLAIN, CLAUSE), MARKS, BREAKS), max_size=12))
def test_no_clause_is_left_and_nothing_else_is_lost(parts: list[tuple[str, str, str]]) -> None:
    policy = "".join(f"{mark}{sentence}{end}" for sentence, mark, end in parts)
    replaced = replace_transfers(policy, "@")
    assert not re.search("human agent|transfer_to_human|hold on", replaced, re.IGNORECASE)
    kept = [sentence for sentence, _, _ in parts if not re.search("human agent|hold on", sentence, re.IGNORECASE)]
    assert re.findall(r"Be kind\.|Refund at once!|Is it late\? Then wait\.|See section 4\.2 first\.", replaced) == kept
    clauses = len(kept) < len(parts)
    assert ("@" in replaced) == clauses
    if not clauses:
        assert replaced == policy
