"""Asks a chat model for a value of a pydantic model. What it says in another form is no error, but no value either."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from pydantic import BaseModel, ValidationError

from orchestra_graph.errors import ConfigError
from orchestra_training.asking import answered_by

S = TypeVar("S", bound=BaseModel)


class Structured(Generic[S]):
    """A chat model that is always asked the same kind of thing.

    Args:
        model: Any chat model with structured output.
        schema: What its replies are to be.
        prompt: Opens each request.

    Raises:
        ConfigError: The model has no structured output.
    """

    def __init__(self, model: BaseChatModel, schema: type[S], prompt: str) -> None:
        try:
            self._model: Any = model.with_structured_output(schema, include_raw=True)
        except NotImplementedError as error:
            raise ConfigError(
                f"{type(model).__name__} has no structured output; expected a chat model that calls tools"
            ) from error
        self._schema = schema
        self._prompt = prompt

    async def ask(self, task: str) -> S | None:
        """The model's reply, or None where it is not of the form that was asked for, or cut off.

        Raises:
            ServerError: The model's server refused or did not answer.
        """
        # The client takes a second to import, which all commands would wait for.
        from openai import ContentFilterFinishReasonError, LengthFinishReasonError  # noqa: PLC0415

        try:
            with answered_by(f"the model asked for {self._schema.__name__}"):
                reply = await self._model.ainvoke([SystemMessage(self._prompt), HumanMessage(task)])
        except (ContentFilterFinishReasonError, LengthFinishReasonError, ValidationError):
            return None
        parsed = reply["parsed"]
        return parsed if isinstance(parsed, self._schema) else None
