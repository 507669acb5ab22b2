"""Every exception that the package raises on purpose, drawn once.

    OrchestraError
    ├── ConfigError          what the caller wrote is wrong: found when a graph, catalog or command is built
    │   ├── CatalogError     a catalog file; lists every problem with its line
    │   └── MissingError     an extra, a program or an environment variable is not there; prints the install line
    ├── RouterError          the router's model server refused for good; the run stops
    ├── ToolError            a call failed; becomes an error outcome that the router reads
    ├── RunLogError          a run log cannot be read or written
    └── ServerError          a model server did not come up, or did not stay up

Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations


class OrchestraError(Exception):
    """Base of all errors raised on purpose; the command line prints its text as one line."""


class ConfigError(OrchestraError, ValueError):
    """An argument or a setting has a wrong value; the text names the value, what was expected, and the fix."""


class CatalogError(ConfigError):
    """A catalog is wrong; `problems` holds one line for each problem found.

    Args:
        source: The file's name, or how the catalog came to be.
        problems: One line a problem: line number, value, what was expected.
    """

    def __init__(self, source: str, problems: list[str]) -> None:
        self.source = source
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {p}" for p in problems)]))


class MissingError(ConfigError):
    """Something that must be installed or set is missing.

    Args:
        what: What is missing, for example `bubblewrap`.
        fix: The command or setting that provides it.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what} is missing; fix: {fix}")


class RouterError(OrchestraError):
    """The router's model refused a request for good (for example 401 or 400): retrying cannot help."""


class ToolError(OrchestraError):
    """A tool call failed in a way that the router should read.

    It never leaves the tool node, but for a terminal destination of `add_router` whose edges lead on: the nodes behind
    it cannot do without it, so that the caller gets the error.

    Args:
        message: Told to the router as it stands.
        retryable: Whether the same call may succeed when it is sent again.
    """

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class RunLogError(OrchestraError):
    """A run log line cannot be read or written; the text names file, line and field."""


class ServerError(OrchestraError):
    """A model server did not come up, or did not stay up; the text says why, where its log is, and what to do."""
