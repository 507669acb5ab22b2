"""The router that ships with the package: a tiny language model, trained on the workbench and only fit for it.

    router = tiny_router()
    graph = create_orchestrator(router, bench.tools(world), catalog=bench.catalog)

Its folder holds the model, its card with all figures, and the words that its training texts held. What it makes of
other words is chance, so `refuse_unknown_words` tells whether a catalog is written in its own.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from orchestra_graph.catalog import Catalog
from orchestra_graph.errors import ConfigError
from orchestra_graph.protocols.scan import ScanProtocol
from orchestra_graph.routers.local import LocalRouter

LEAST_KNOWN: Final = 0.75
"""Share of the words of a description that the router must know."""

WORDS: Final = "words.txt"

_WORD: Final = re.compile(r"[a-z]{3,}")


def tiny_folder() -> Path:
    """Where the model lies."""
    return Path(str(resources.files("orchestra_graph") / "routers" / "tiny"))


def tiny_router(**options: Any) -> LocalRouter:
    """The tiny router.

    Args:
        **options: Fields of `LocalRouter`.

    Raises:
        MissingError: The extra `local` is not installed.
    """
    return LocalRouter.from_folder(tiny_folder(), **{"protocol": ScanProtocol(), **options})


def words_of(text: str) -> set[str]:
    """The words of a text, as the list of known ones has them."""
    return set(_WORD.findall(text.lower()))


def refuse_unknown_words(catalog: Catalog) -> None:
    """Check that a catalog is written in words that the tiny router was trained on.

    Raises:
        ConfigError: Names the line that is not, and the alternatives.
    """
    for spec in catalog.tools.values():
        words = words_of(spec.description)
        unknown = sorted(words - _known())
        if not words or len(unknown) > (1 - LEAST_KNOWN) * len(words):
            told = f"it does not know {', '.join(unknown[:5])}" if words else "it has no description"
            raise ConfigError(
                f"the tiny router was trained on the workbench and cannot judge {spec.name!r}: {told}; take "
                "the router `rules`, or a model that calls tools (`orchestra ask` takes the catalog's [router]), or "
                "train one on your own tools"
            )


@cache
def _known() -> frozenset[str]:
    return frozenset((tiny_folder() / WORDS).read_text(encoding="utf-8").split())
