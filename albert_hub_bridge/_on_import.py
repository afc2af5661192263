"""Register this package's classes when transformers or KerasHub is imported, and not before.

`_registration` needs wrapt, which takes longer to import than most commands take to run, and most commands import
neither library.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


_LIBRARIES = ("transformers", "keras_hub")
# These import transformers. `_registration` waits for them, and wrapt takes a module that is half loaded for loaded.
_CLASSES = tuple(f"albert_hub_bridge.model.{name}_albert_hub" for name in ("configuration", "modeling", "tokenization"))


class _Waiting:
    """A finder of modules that finds none, and imports `_registration` before the first of the modules is found."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return None for any other module; see `importlib.abc.MetaPathFinder`."""
        if name not in (*_LIBRARIES, *_CLASSES) or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        _import_registration()
        return importlib.util.find_spec(name)  # again, now that the hooks of wrapt are there


def register_when_imported() -> None:
    """Import `_registration` at once if one of the libraries is loaded, or else when one is imported."""
    if any(name in sys.modules for name in _LIBRARIES):
        _import_registration()
    else:
        sys.meta_path.insert(0, _Waiting())


def _import_registration() -> None:
    importlib.import_module("albert_hub_bridge._registration")
