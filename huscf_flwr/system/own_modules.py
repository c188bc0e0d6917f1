"""Modules of the user's own, and this project's packages where the user has some called the same.

Users' modules lie in the folder where the command was typed, or travel in the app's. `strategies`
and `simulations` lie beside `huscf_flwr`, and are names that a user may have, too: there, or in
any folder that Python looks in, as Ray has it look in the one where the SuperLink was started.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

HOME = str(Path(__file__).resolve().parents[2])
"""The folder that `huscf_flwr` lies in; of an app that Flower runs, the app's."""

_BESIDE = ("strategies", "simulations")
_places: list[str] = []


def look_in(*places: str) -> None:
    """Find modules of the user's own in these folders, in that order.

    For processes that are this project's: from now on, its packages are found beside `huscf_flwr`,
    whatever else is called so.
    """
    _places[:] = places
    sys.path.extend(place for place in places if place not in sys.path)
    if not any(isinstance(finder, _Beside) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Beside())


class _Beside(MetaPathFinder):
    """Finds the packages that lie beside `huscf_flwr`; modules of the user's add to them."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, [HOME]) if name in _BESIDE else None
        if spec is not None and (folders := spec.submodule_search_locations) is not None:
            theirs = (str(Path(place, name)) for place in _places)
            folders.extend(folder for folder in theirs if folder not in folders)
        return spec


def import_own(name: str) -> ModuleType:
    """A module of the user's own, or one that is installed.

    Raises
    ------
    ImportError: it cannot be imported, or is called like one that Python has loaded.
    """
    found = ((place, file) for place in _places if (file := _file_of(name, place)))
    place, file = next(found, ("", None))
    if file is None:
        return importlib.import_module(name)
    if name not in sys.modules:
        sys.path.insert(0, place)  # before what is installed, for as long as it takes
        try:
            importlib.import_module(name)
        finally:
            sys.path.remove(place)
    module = sys.modules[name]
    if Path(module.__file__ or "").resolve() != file.resolve():
        raise ImportError(f"{name} is {module.__file__ or 'of Python'}: give {file} another name")
    return module


def _file_of(name: str, place: str) -> Path | None:
    path = Path(place, *name.split("."))
    return next((f for f in (path / "__init__.py", path.with_suffix(".py")) if f.is_file()), None)
