"""A tool that runs the router's Python code in a sandbox and returns what it printed."""

from __future__ import annotations

from orchestra_graph.catalog import Limits, ToolSpec
from orchestra_graph.errors import ConfigError, ToolError
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.sandbox import Bubblewrap, Sandbox

DESCRIPTION = (
    "Runs a Python 3 program and returns what it prints; an error comes back as its traceback. It stops after "
    "{timeout:g} seconds. Nothing is kept between calls: write a whole program and print every result."
)
PARAMETERS = {
    "type": "object",
    "properties": {"code": {"type": "string", "description": "Source of a complete Python program."}},
    "required": ["code"],
    "additionalProperties": False,
}


class CodeInterpreter(Tool):
    """Runs Python code; what the code did wrong is content, not an error of the call.

    The result's artifact is `{"exit_code", "timed_out", "truncated", "seconds"}`.

    Args:
        sandbox: Where the code runs; `Bubblewrap()` where None.
        name: Name of the tool.
        timeout: Wall seconds of one program.

    Raises:
        MissingError: No sandbox is given and bubblewrap is not installed.
        ConfigError: A sandbox cannot be started on this machine, or the timeout is not above 0.
    """

    def __init__(
        self,
        sandbox: Sandbox | None = None,
        *,
        name: str = "code_interpreter",
        timeout: float = 10.0,
    ) -> None:
        if not timeout > 0:
            raise ConfigError(f"timeout = {timeout!r}: expected a number above 0")
        self._sandbox = sandbox if sandbox is not None else Bubblewrap()
        self._timeout = timeout
        self.spec = ToolSpec(
            name=name,
            kind="code",
            description=DESCRIPTION.format(timeout=timeout),
            parameters=PARAMETERS,
            # the sandbox tells the router why it stopped; the graph's own limit would only cut the call
            limits=Limits(timeout=timeout + 30),
        )

    async def run(self, request: Request) -> Result:
        """Run the program in the argument `code`.

        Raises:
            ToolError: The sandbox could not be started.
        """
        try:
            execution = await self._sandbox.run(request.args["code"], timeout=self._timeout)
        except OSError as error:
            raise ToolError(f"the sandbox did not start: {error}", retryable=True) from error
        state = {
            "exit_code": execution.exit_code,
            "timed_out": execution.timed_out,
            "truncated": execution.truncated,
            "seconds": execution.seconds,
        }
        return Result(content=execution.text, artifacts=[state])
