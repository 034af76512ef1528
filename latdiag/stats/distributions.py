"""The few functions of distributions that intervals take, as scipy has them."""

from __future__ import annotations

import sys
import threading
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def normal_quantile(level: float) -> float:
    """Of the standard normal law."""
    return float(_special().ndtri(level))


def t_quantile(freedom: float, level: float) -> float:
    """Of Student's t with ``freedom`` degrees of freedom, which need not be whole."""
    return float(_special().stdtrit(freedom, level))


def binomial_share(k: int, n: int, p: float) -> float:
    """P(Binomial(n, p) <= k)."""
    return float(_special().bdtr(k, n, p))


@cache
def _special() -> ModuleType:
    """``scipy.special``, or its compiled part alone: the whole takes a third of a second of CPU to
    load, which is a fifth of what a probe takes to explain.

    The compiled part asks for its package, so an empty one stands in for it meanwhile. Another
    thread could see that: where there is one, and where the part does not load alone, the whole
    package is loaded.
    """
    package = "scipy.special"
    if package not in sys.modules and threading.active_count() == 1:
        spec = find_spec(package)
        stand_in = ModuleType(package)
        stand_in.__path__ = list((spec and spec.submodule_search_locations) or ())
        sys.modules[package] = stand_in
        try:
            alone = import_module(f"{package}._ufuncs")
            if all(hasattr(alone, name) for name in ("ndtri", "stdtrit", "bdtr")):
                return alone
        except ImportError:
            pass
        finally:
            del sys.modules[package]
    return import_module(package)
