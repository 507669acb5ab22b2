"""What becomes of a question to a model whose server does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from orchestra_graph.attempts import unreadable
from orchestra_graph.billing import describe, is_refusal, is_transient
from orchestra_graph.errors import ServerError


@contextmanager
def answered_by(whom: str) -> Iterator[None]:
    """Ask inside: a server that refuses, cannot be reached or sends no message is told in one line, whatever is raised.

    Args:
        whom: Who is asked, for the error.

    Raises:
        ServerError: The server refused or did not answer.
    """
    try:
        yield
    except Exception as error:
        fault = None if isinstance(error, ValidationError) else unreadable(error)  # that is for who knows the form
        if fault is not None or is_refusal(error) or is_transient(error):
            raise ServerError(f"no reply of {whom}: {describe(fault or error)}") from error
        raise
