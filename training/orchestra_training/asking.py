"""What becomes of a question to a model whose server does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestra_graph.billing import describe, is_refusal, is_transient
from orchestra_graph.errors import ServerError


@contextmanager
def answered_by(whom: str) -> Iterator[None]:
    """Ask inside: a server that refuses or cannot be reached is told in one line, whatever its client raises.

    Args:
        whom: Who is asked, for the error.

    Raises:
        ServerError: The server refused or did not answer.
    """
    try:
        yield
    except Exception as error:
        if is_refusal(error) or is_transient(error):
            raise ServerError(f"no reply of {whom}: {describe(error)}") from error
        raise
