"""Chat templates, rendered as transformers and vLLM render them: what is trained in process is what is served."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

from langchain_core.messages import BaseMessage, convert_to_openai_messages

from orchestra_graph.errors import MissingError


def compile_template(text: str) -> Any:
    """A template of Jinja with what transformers adds to it: plain JSON above all, where Jinja's is for HTML.

    Raises:
        MissingError: Jinja is not installed.
    """
    try:
        from jinja2 import TemplateError, nodes  # noqa: PLC0415  (an extra)
        from jinja2.ext import Extension, loopcontrols  # noqa: PLC0415
        from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415
    except ImportError as error:
        raise MissingError("the package jinja2", "pip install 'orchestra-graph[local]'") from error

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    class Generation(Extension):
        """`{% generation %}`, by which training finds what the model writes: shown as what is in it."""

        tags = {"generation"}  # noqa: RUF012  (as its base has it)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form)}
    return environment.from_string(text)


def shown_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Messages as a template reads them: servers hand it the arguments of calls as objects, not as their JSON."""
    shown = convert_to_openai_messages(list(messages))
    for message in shown:
        for call in message.get("tool_calls") or ():
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return shown


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
