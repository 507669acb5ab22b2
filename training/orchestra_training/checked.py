"""Data from outside, checked against a model: what is wrong is told in one line."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from orchestra_graph.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


def checked(model: type[M], data: Any, place: str, *, fix: str = "") -> M:
    """Read a value of a model.

    Args:
        model: What is expected.
        data: JSON as bytes, or a mapping or object with the model's fields.
        place: Where the data is from, for example `file:line`.
        fix: What the reader of the error can do.

    Raises:
        ConfigError: Names place, field and value of the first thing that is wrong.
    """
    try:
        return model.model_validate_json(data) if isinstance(data, bytes) else model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "record"
        told = f"{place}: {field} = {first['input']!r:.60}: {first['msg']}"
        raise ConfigError(f"{told}; fix: {fix}" if fix else told) from error
