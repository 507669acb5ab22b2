"""What is taken for a secret in a text."""

from __future__ import annotations

import pytest

from orchestra_graph.redact import hide_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "401 - {'message': 'Incorrect API key: sk-proj-abcd1234.'}",
            "401 - {'message': 'Incorrect API key: [secret].'}",
        ),
        ("header Authorization: Bearer abcdefgh12345", "header Authorization: [secret]"),
        ("cannot reach http://user:pass-word@host:80/x", "cannot reach http://[secret]@host:80/x"),
        ("tvly-0123456789 and hf_0123456789", "[secret] and [secret]"),
        ("a task-oriented risk-free disk-1234567890", "a task-oriented risk-free disk-1234567890"),
        ("the bearer of news; sk-ip", "the bearer of news; sk-ip"),
    ],
)
def test_hide_secrets(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown
