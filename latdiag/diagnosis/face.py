"""How a result shows itself in a notebook. What draws it lies in ``report``, above this room, and
is made known here by ``latdiag.api``, through which every notebook gets its results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latdiag.model.errors import LocalFault, UsageFault
from latdiag.model.text import shown

if TYPE_CHECKING:
    import os


@dataclass(frozen=True, slots=True)
class Drawing:
    """An SVG image. A notebook shows it; ``svg`` is its text."""

    svg: str

    def __str__(self) -> str:
        return self.svg

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a new file. UsageFault where there is one, LocalFault where that fails."""
        try:
            with Path(path).open("x", encoding="utf-8") as file:
                file.write(self.svg)
        except FileExistsError as error:
            raise UsageFault(f"{path} exists already", "choose another file") from error
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise LocalFault(f"{path} cannot be written: {why}", "choose another file") from error


@dataclass(slots=True)
class Face:
    """``html``: of a Result, its first screen; ``drawing``: its drawings as one."""

    html: Callable[[Any], str] | None = None
    drawing: Callable[[Any], Drawing] | None = None


#: The one that draws in this process.
FACE = Face()


def plain(verb: str, said: str) -> str:
    """A line of HTML, where nothing draws."""
    return f"<p><b>latdiag {escape(verb)}</b> {escape(shown(said, 600))}</p>"
