"""LeRobot's dataset writer, imported in 5 s and 200 MB instead of 25 s and 800 MB.

To write a dataset, LeRobot needs neither PyTorch nor torchvision nor transformers: modules on the way to its
writer name some of their types, in annotations and as base classes of what writing does not use. While the
writer is imported, names stand in for those packages, and nothing but names: whoever calls one gets an
error. Measured on two busy cores; a recorder with 800 MB would not fit beside a trainer on a small machine.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_NAMED = ("torch", "torchvision")
_MISSING = ("transformers", "accelerate")  # LeRobot asks whether they are installed, and does without


class _Name(type):
    """A class that can be named, inherited from and tested against, and has all attributes; not called."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(name, (), {})

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls.__name__ in ("no_grad", "inference_mode"):  # decorators
            return _unchanged
        raise RuntimeError(f"{cls.__name__} was left out when the recorder imported LeRobot")


def _unchanged(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


class _Names(ModuleType):
    """A module in which every name is there."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.split(".")[0] not in _NAMED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Names(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@contextmanager
def without_torch() -> Iterator[None]:
    """Import LeRobot's writer within. What was imported before stays as it is."""
    absent = [name for name in (*_NAMED, *_MISSING) if name not in sys.modules]
    finder = _Finder()
    if set(_NAMED) <= set(absent):
        sys.meta_path.insert(0, finder)
    for name in set(absent) & set(_MISSING):
        sys.modules[name] = None  # type: ignore[assignment]  # "not installed", says the import system
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] in absent]:
            if sys.modules[name] is None or isinstance(sys.modules[name], _Names):
                del sys.modules[name]
