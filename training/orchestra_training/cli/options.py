"""Options that mean nothing without another one, or beside it."""

from __future__ import annotations

from collections.abc import Mapping

import typer


def refuse_options(options: Mapping[str, object], needed: str) -> None:
    """Refuse options that would be ignored.

    Args:
        options: What was given, by option; None where it was not.
        needed: The option without which they mean nothing.

    Raises:
        BadParameter: Names those that were given.
    """
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise typer.BadParameter(f"{', '.join(given)} without {needed}; add it, or drop {' and '.join(given)}.")


def refuse_beside(options: Mapping[str, object], other: str) -> None:
    """Refuse options that would be ignored.

    Args:
        options: What was given, by option; None where it was not.
        other: What they mean nothing beside, and why.

    Raises:
        BadParameter: Names those that were given.
    """
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise typer.BadParameter(f"{' and '.join(given)} beside {other}; drop {'it' if len(given) == 1 else 'them'}.")
