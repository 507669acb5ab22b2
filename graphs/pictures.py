"""Writes the pictures of the graphs into their README: python graphs/pictures.py

Solid lines are always taken, dotted ones are the router's choice. No server and no key are needed.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Final

from orchestra_graph.settings import load_module

FOLDER: Final = Path(__file__).parent
README: Final = FOLDER / "README.md"
KEYS: Final = {"OPENAI_API_KEY": "none"}
"""Drawing calls nobody, but a graph is not built without the keys that its catalog names."""

_PLACE: Final = re.compile(r"(<!-- picture: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def draw(name: str) -> str:
    """The picture of a graph, drawn from the compiled graph of its settings."""
    shipped = (FOLDER / f"{name}.toml").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        for file in FOLDER.glob("shop*"):
            (Path(folder) / file.name).write_bytes(file.read_bytes())
        (Path(folder) / "documents").mkdir()
        (Path(folder) / "documents" / "any.txt").write_text("A search needs a document.", encoding="utf-8")
        settings = Path(folder) / f"{name}.toml"
        settings.write_text(shipped, encoding="utf-8")
        graph = load_module(FOLDER / f"{name}.py").make(settings, KEYS).compile(name=name)
    picture: str = graph.get_graph().draw_mermaid()
    return picture


def main() -> None:
    """Write all pictures."""
    text = README.read_text(encoding="utf-8")
    README.write_text(_PLACE.sub(lambda at: f"{at[1]}```mermaid\n{draw(at[2])}```\n{at[3]}", text), encoding="utf-8")


if __name__ == "__main__":
    main()
