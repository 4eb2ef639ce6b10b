"""Parts from outside Sumi: those of installed packages, and those of the project's own folder ``parts/``.

    [project.entry-points."sumi.parts"]              in the pyproject.toml of a package
    "process.zipf" = "my_package.zipf:Zipf"

    PARTS = {"process.zipf": Zipf}                   in a file parts/*.py of the project

A name is that of a registry, a dot, and the name that configs use. Nothing is imported before it is used: names come
from the packages' metadata and from the text of the files. Since the code of such a part has no version, a digest of it
enters the fingerprints of the stages that read the part.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from sumi_core.base.errors import SumiError
from sumi_core.base.hashing import file_sha256, fingerprint
from sumi_core.base.paths import project_root

GROUP = "sumi.parts"  # of entry points
FOLDER = "parts"  # of a project
_PACKAGE = "sumi_parts"  # what the folder is called among Python's modules
_SHIPPED = ("sumi_core", "assets", "pipelines")
_held: ContextVar[list[Outside] | None] = ContextVar("_held", default=None)  # inside ``in_one_place``
_IMPORTED: dict[str, str] = {}  # module of a part → the digest of its code when this process imported it


class PartError(SumiError):
    """A part from outside that cannot be used. One sentence that names it, where it is from, and what to do."""


@dataclass(frozen=True)
class OutsidePart:
    """A part by its full name, such as ``process.zipf``. origin: where it is from, for complaints. module, attribute:
    where its class is; a part of the folder is in the module's ``PARTS`` under its name."""

    name: str
    origin: str
    module: str
    attribute: str | None = None

    def load(self) -> Any:
        """The class, imported now. Raises PartError."""
        try:
            found: Any = importlib.import_module(self.module)
            if self.attribute is None:
                found = found.PARTS[self.name]
            else:
                found = functools.reduce(getattr, self.attribute.split("."), found)
            _IMPORTED.setdefault(found.__module__, code_digest(found.__module__))
            return found
        except Exception as error:  # another project's code may raise anything
            problem = f"{type(error).__name__}: {error}"
            raise PartError(f"'{self.name}' of {self.origin} cannot be imported ({problem}); correct it") from error


@dataclass
class Outside:
    """What is found outside. parts: by full name; more than one is a clash. broken: a sentence for each file and entry
    that cannot be read."""

    parts: dict[str, list[OutsidePart]] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, part: OutsidePart) -> None:
        """Take in a part under its name."""
        self.parts.setdefault(part.name, []).append(part)


def outside_parts() -> Outside:
    """The parts that installed packages and the project around this process offer, read once."""
    held = _held.get()
    if held is None:
        return _outside(os.getcwd(), os.environ.get("SUMI_PROJECT"))
    if not held:
        held.append(_outside(os.getcwd(), os.environ.get("SUMI_PROJECT")))
    return held[0]


@contextlib.contextmanager
def in_one_place() -> Iterator[None]:
    """Inside, what is offered is looked up once: whatever reads many cells asks for their parts by the thousand."""
    token = _held.set([])
    try:
        yield
    finally:
        _held.reset(token)


def look_again() -> None:
    """Forget what was read: a long-lived process calls this before it plans. Modules that are imported stay."""
    _outside.cache_clear()
    code_digest.cache_clear()


@functools.lru_cache(maxsize=8)
def _outside(cwd: str, project: str | None) -> Outside:
    found = Outside()
    for entry in importlib.metadata.entry_points(group=GROUP):
        package = f"package {entry.dist.name}" if entry.dist else "a package"
        module, _, attribute = entry.value.partition("[")[0].partition(":")
        found.add(OutsidePart(entry.name, package, module.strip(), attribute.strip() or None))
    folder = project_root() / FOLDER
    files = sorted(folder.glob("*.py"))
    if files:
        _open(folder)
    for file in files:
        origin = f"{FOLDER}/{file.name}"
        try:
            for name in _names(file):
                found.add(OutsidePart(name, origin, f"{_PACKAGE}.{file.stem}"))
        except (SyntaxError, ValueError, OSError) as error:
            found.broken.append(f"{origin} cannot be read ({error}); correct it")
    return found


def _open(folder: Path) -> None:
    """Let Python find the files of the folder as modules of one package, so that they may import each other."""
    package = sys.modules.get(_PACKAGE)
    if package is None or list(package.__path__) != [str(folder)]:
        for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:  # those of another project
            del sys.modules[name]
        package = types.ModuleType(_PACKAGE)
        package.__path__ = [str(folder)]
        sys.modules[_PACKAGE] = package
    importlib.invalidate_caches()


def _names(file: Path) -> list[str]:
    """The keys of the module's ``PARTS``, without running it. A file without one is a helper of others."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == "PARTS" for target in targets):
            keys = node.value.keys if isinstance(node.value, ast.Dict) else [None]
            names = [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
            if len(names) != len(keys):
                raise ValueError('PARTS is not a dict written as {"process.zipf": Zipf}')
            return names
    return []


# --- the digest of a part's code ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=256)
def code_digest(module: str) -> str:
    """A digest of a module's source and of what it imports, directly or not, from its own package and from the project.
    Sumi and other packages have versions of their own, and are left out."""
    sources: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in sources or (file := _own_file(name, module)) is None:
            continue
        sources[name] = file_sha256(file)
        waiting += _imports(name, file)
    return fingerprint(sources)


def edited_since_import(module: str) -> bool:
    """Whether the module of a part has other code on disk than this process runs."""
    return _IMPORTED.get(module) != code_digest(module)


def _own_file(name: str, module: str) -> Path | None:
    """The file of a module that belongs to the part's package or to the project; else None. Imports no other package,
    as looking for a module inside one would."""
    top = name.partition(".")[0]
    if top in _SHIPPED or top in sys.stdlib_module_names:
        return None
    if top != module.partition(".")[0] and not _is_in_project(_spec(top)):
        return None
    spec = _spec(name)
    return Path(spec.origin).resolve() if spec and spec.origin and spec.origin.endswith(".py") else None


def _spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except Exception:  # an attribute of a module, a module that is not there, one whose parent cannot be imported
        return None


def _is_in_project(spec: ModuleSpec | None) -> bool:
    if spec is None:
        return False
    places = [Path(place).resolve() for place in (spec.submodule_search_locations or [spec.origin or "/"])]
    return any(
        place.is_relative_to(project_root()) and not {"site-packages", "dist-packages"} & set(place.parts)
        for place in places
    )


def _imports(name: str, file: Path) -> Iterator[str]:
    """What a module imports, by absolute names; whether ``b`` of ``from a import b`` is a module is not looked at.
    Its parents are among them, since importing it runs them."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:  # of a module that is imported when it is needed, and then says so
        return
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            names = [start, *(f"{start}.{alias.name}" for alias in node.names)]
        for found in names:
            yield from _with_parents(found)
    yield from _with_parents(package)


def _with_parents(name: str) -> Iterator[str]:
    steps = name.split(".") if name else []
    yield from (".".join(steps[:length]) for length in range(1, len(steps) + 1))
