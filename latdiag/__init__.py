"""latdiag: where the latency of an LLM endpoint goes.

``docs/api.md`` says what there is for Python. Nothing heavy is imported here: each name is loaded
when it is first asked for (``__init__.pyi`` tells type checkers what each is).
"""

from importlib import import_module

__version__ = "0.1.0"

_PLACES = {
    "latdiag.api": (
        *("compare_runs", "diagnose_run", "import_run", "open_run", "run_load", "run_probe"),
    ),
    "latdiag.diagnosis.compare": ("Comparison",),
    "latdiag.diagnosis.result": ("Breakdown", "Result", "Share", "Verdict"),
    "latdiag.load.wire.transport": ("StampedTransport",),
    "latdiag.model.caveat": ("Caveat",),
    "latdiag.model.errors": ("Interrupted", "LatdiagError"),
    "latdiag.stats.estimate": ("Estimate",),
    "latdiag.store.run": ("Run",),
}
_PLACE = {name: module for module, names in _PLACES.items() for name in names}

__all__ = sorted(_PLACE)


def __getattr__(name: str) -> object:
    if name not in _PLACE:
        raise AttributeError(f"module 'latdiag' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_PLACE[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
