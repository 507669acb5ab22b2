"""A tool that searches the web through Tavily (https://tavily.com); needs the extra `search` and a key."""

from __future__ import annotations

import os
import re
from typing import Any, Literal

from langchain_core.tools import ToolException
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from orchestra_graph.catalog import Limits, Price, ToolSpec
from orchestra_graph.errors import ConfigError, MissingError, ToolError
from orchestra_graph.tools.base import Request, Result, Tool
from orchestra_graph.tools.documents import missing_extra
from orchestra_graph.tools.local_search import passages_result

DESCRIPTION = (
    "Searches the web and returns excerpts of the pages that fit best, with their addresses. "
    "For recent events and for facts that no other tool knows."
)
PARAMETERS = {
    "type": "object",
    "properties": {"query": {"type": "string", "description": "What to look for, as in a search engine."}},
    "required": ["query"],
    "additionalProperties": False,
}
KEY_VARIABLE = "TAVILY_API_KEY"

_DOLLARS_PER_CREDIT = 0.008
"""Pay as you go, https://docs.tavily.com/documentation/api-credits; a catalog can say otherwise."""
_CREDITS = {"basic": 1, "advanced": 2, "fast": 1, "ultra-fast": 1}
_STATUS = re.compile(r"Error (\d{3})\b")


class _Page(BaseModel):
    source: str = Field(alias="url")
    title: str | None
    text: str = Field(alias="content")
    score: float | None = None


_PAGES = TypeAdapter(list[_Page])


class WebSearch(Tool):
    """Searches the web; artifacts are `{"source", "title", "text", "score"}`, best first.

    Args:
        api_key: Tavily's key.
        name: Name of the tool.
        description: What the router reads.
        top_k: Pages returned at most.
        depth: Tavily's search depth; `advanced` costs twice as much.
        base_url: Address of another server that speaks Tavily's API.
        **options: Further settings of `langchain_tavily.TavilySearch`, for example `include_domains`.

    Raises:
        MissingError: The extra `search` is not installed.
        ConfigError: There is no key.
    """

    def __init__(
        self,
        api_key: str = "",
        *,
        name: str = "web_search",
        description: str = DESCRIPTION,
        top_k: int = 5,
        depth: Literal["basic", "advanced", "fast", "ultra-fast"] = "basic",
        base_url: str | None = None,
        **options: Any,
    ) -> None:
        try:
            from langchain_tavily import TavilySearch  # noqa: PLC0415  (optional extra)
        except ImportError as error:
            raise missing_extra() from error
        if not api_key:
            raise ConfigError("no api_key; expected a key of Tavily; fix: WebSearch.from_env(), or WebSearch(KEY)")
        self._search = TavilySearch(
            tavily_api_key=api_key,
            api_base_url=base_url,
            max_results=top_k,
            search_depth=depth,
            handle_tool_error=False,
            **options,
        )
        self.spec = ToolSpec(
            name=name,
            kind="search",
            description=description,
            parameters=PARAMETERS,
            price=Price(per_call=_CREDITS[depth] * _DOLLARS_PER_CREDIT),
            limits=Limits(timeout=30),
        )

    @classmethod
    def from_env(cls, variable: str = KEY_VARIABLE, **options: Any) -> WebSearch:
        """Make one with the key in an environment variable; options as for `WebSearch`.

        Raises:
            MissingError: The variable is not set, or the extra `search` is not installed.
        """
        key = os.environ.get(variable)
        if not key:
            raise MissingError(
                f"the environment variable {variable}", f"export {variable}=... (https://app.tavily.com)"
            )
        return cls(key, **options)

    async def run(self, request: Request) -> Result:
        """Search for the argument `query`.

        Raises:
            ToolError: Tavily refused, failed or could not be reached.
        """
        query = request.args["query"]
        try:
            reply = await self._search.ainvoke({"query": query})
        except ToolException:  # how it says that nothing was found
            return passages_result(query, [])
        if "error" in reply:
            raise _error(reply["error"]) from reply["error"]
        try:
            pages = _PAGES.validate_python(reply["results"])
        except ValidationError as error:
            raise ToolError(f"web search failed: the reply is not Tavily's: {error}", retryable=True) from error
        return passages_result(query, [page.model_dump() for page in pages])


def _error(error: Exception) -> ToolError:
    """Which failures may pass: the limit on requests, the server's own, and those of the connection."""
    status = _STATUS.match(str(error))
    if status is None:
        return ToolError(f"web search failed: {type(error).__name__}: {error}", retryable=True)
    code = int(status[1])
    advice = "; the key is not valid" if code == 401 else ""
    return _RefusedError(code, f"web search failed: {error}{advice}", retryable=code == 429 or code >= 500)


class _RefusedError(ToolError):
    """Tavily answered with a status, and bills nothing for that."""

    def __init__(self, status_code: int, message: str, *, retryable: bool) -> None:
        super().__init__(message, retryable=retryable)
        self.status_code = status_code
