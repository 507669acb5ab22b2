"""Settings of a graph that is configured by a file: TOML on disk, a pydantic model in memory.

    class MySettings(GraphSettings):
        policy: str

    settings = read_settings(Path("graph.toml"), MySettings)

Paths in a file start at the file's folder. Keys are never in it: its catalog names environment variables.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestra_graph.billing import describe
from orchestra_graph.catalog import Catalog, ModelSpec
from orchestra_graph.catalog_file import parse_catalog, read_catalog
from orchestra_graph.errors import ConfigError
from orchestra_graph.preferences import Budget, Preferences
from orchestra_graph.runlog.log import RunLog
from orchestra_graph.tokens import FolderTokenizer, ServerTokenizer, Tokenizer

S = TypeVar("S", bound="GraphSettings")


class GraphSettings(BaseModel):
    """What every configured graph can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(default=Path(), exclude=True)
    """Where relative paths start; set by `read_settings`."""
    catalog: str
    """A catalog file, or between triple quotes the catalog itself."""
    router: ModelSpec | None = None
    """The router's model and address, in place of the catalog's."""
    tokenizer: str | None = None
    """Folder of the router's model, where the protocol counts tokens; without it the router's server is asked."""
    preferences: Preferences = Preferences()
    """Unless a run's context says otherwise."""
    budget: Budget = Budget()
    """Unless a run's context says otherwise."""
    run_log: str | None = None
    """File that each run is written to."""

    @property
    def catalog_is_file(self) -> bool:
        """Whether `catalog` names a file."""
        return "\n" not in self.catalog

    def path(self, name: str) -> Path:
        """A path of the file, from the file's folder."""
        return self.folder / name

    def text(self, name: str) -> str:
        """The text of a file that the settings name.

        Raises:
            ConfigError: It cannot be read.
        """
        path = self.path(name)
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise ConfigError(f"{str(path)!r} cannot be read: {reason}; expected a text file") from error

    def read_catalog(self) -> Catalog:
        """The catalog, its paths from the file's folder, with the router's address where the settings state one.

        Raises:
            CatalogError: Lists every problem with its line.
        """
        if self.catalog_is_file:
            catalog = read_catalog(self.path(self.catalog))
        else:
            catalog = parse_catalog(self.catalog, "the settings' catalog")
        tools = [
            spec if spec.path is None else spec.model_copy(update={"path": str(self.path(spec.path))})
            for spec in catalog.tools.values()
        ]
        return Catalog.of(tools, router=self.router or catalog.router)

    def make_tokenizer(self, router: ModelSpec, environment: Mapping[str, str]) -> Tokenizer:
        """The tokenizer of the router's model.

        Raises:
            ConfigError: There is neither a folder nor a server that could be asked.
        """
        if self.tokenizer is not None:
            return FolderTokenizer(self.path(self.tokenizer))
        if router.base_url is None or router.model is None:
            raise ConfigError("tokenizer is missing; expected the folder of the router's model, or a router on vLLM")
        key = environment.get(router.api_key_env) if router.api_key_env else None
        return ServerTokenizer(router.base_url, router.model, key)

    def make_run_log(self) -> RunLog | None:
        """The run log, if there is to be one."""
        return None if self.run_log is None else RunLog(self.path(self.run_log))


def read_settings(path: Path, settings: type[S]) -> S:
    """Read a settings file.

    Raises:
        ConfigError: The file cannot be read, or is wrong; one line that names every problem.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{str(path)!r} cannot be read: {error.strerror}; expected settings in TOML") from error
    except ValueError as error:  # a TOMLDecodeError, or bytes that are no UTF-8
        raise ConfigError(f"{path}: {error}; expected TOML in UTF-8") from error
    try:
        return settings.model_validate({**data, "folder": path.parent})
    except ValidationError as error:
        known = ", ".join(name for name in settings.model_fields if name != "folder")
        problems = "; ".join(_problem(detail, known) for detail in error.errors())
        raise ConfigError(f"{path}: {problems}") from error


def load(reference: str, folder: Path = Path()) -> Any:
    """Load a name from a Python file, for example `shop.py:make_tools`. The file need not be importable otherwise.

    Raises:
        ConfigError: There is no such file or name, or the file fails.
    """
    file, _, name = reference.rpartition(":")
    if not name.isidentifier() or not file.endswith(".py"):
        raise ConfigError(f"{reference!r}: expected FILE.py:NAME, a name in a Python file below {str(folder)!r}")
    module = load_module(folder / file)
    if not hasattr(module, name):
        raise ConfigError(f"{reference!r}: {file} has no {name}; expected one of its names")
    return getattr(module, name)


def load_module(path: Path) -> ModuleType:
    """Load a Python file as a module, once in a process.

    Raises:
        ConfigError: There is no such file, or it fails.
    """
    # Registered, because dataclasses and pydantic look the names of annotations up there.
    name = f"file:{path.resolve()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{str(path)!r} is not there; expected a Python file")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception | SystemExit):
            raise
        raise ConfigError(f"{str(path)!r} cannot be loaded: {describe(error)}; fix: mend it") from error
    return module


def _problem(detail: Any, known: str) -> str:
    where = ".".join(map(str, detail["loc"]))
    if detail["type"] == "missing":
        return f"{where} is missing"
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key" + (f"; expected one of {known}" if len(detail["loc"]) == 1 else "")
    if "api_key" in where:
        return f"{where} (its value is not shown): {detail['msg']}"
    return f"{where} = {detail['input']!r}: {detail['msg']}"
