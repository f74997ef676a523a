"""Packages whose `__init__` only passes names on import the module of a name when somebody looks the name up.

The SDK passes on a thousand classes of requests and answers; to import them takes longer than all the rest of it, and
who reads the JSON of an answer needs none. They are there as ever for whoever asks for one.
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType


@contextmanager
def when_looked_up(*packages: str) -> Iterator[None]:
    """For what is imported meanwhile: these packages and those within them, as far as they only pass names on."""
    finder = _Finder(packages)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    """Finds the packages where they are, and has their names looked up."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not any(fullname == package or fullname.startswith(f"{package}.") for package in self._packages):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.submodule_search_locations is None or not isinstance(spec.loader, InspectLoader):
            return None
        names = _passed_on(spec.loader.get_source(fullname) or "")
        if names:
            spec.loader = _LookUp(names)
        return spec


class _LookUp(Loader):
    """Makes a package that knows where each of its names is, and has run nothing yet."""

    def __init__(self, names: Mapping[str, tuple[str, str]]) -> None:
        self._names = names
        self._modules = {module for module, _ in names.values()}

    def exec_module(self, module: ModuleType) -> None:
        package = module.__name__

        def look_up(name: str) -> object:
            if name in self._names:
                within, original = self._names[name]
                found = getattr(import_module(f".{within}", package), original)
                setattr(module, name, found)
                return found
            if name in self._modules or (not name.startswith("_") and find_spec(f".{name}", package) is not None):
                return import_module(f".{name}", package)
            raise AttributeError(f"module {package!r} has no attribute {name!r}")

        known = {*self._names, *self._modules}
        vars(module).update(
            __getattr__=look_up,
            __dir__=lambda: sorted({*vars(module), *known}),
            __all__=[name for name in known if not name.startswith("_")],  # what `import *` brings without us
        )


def _passed_on(source: str) -> dict[str, tuple[str, str]]:
    """Each name that a package passes on, with its module and its name there; nothing if the package does more."""
    names: dict[str, tuple[str, str]] = {}
    for statement in ast.parse(source).body:
        match statement:
            case ast.ImportFrom(module="__future__"):
                continue
            case ast.ImportFrom(module=str(module), level=1):
                names |= {alias.asname or alias.name: (module, alias.name) for alias in statement.names}
            case _:
                return {}
    # A name that is a module's too would be whatever was imported last; a star's names are not known.
    return {} if "*" in names or names.keys() & {module for module, _ in names.values()} else names
