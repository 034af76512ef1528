"""The URL behind a target: of a server, or of one that this command starts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from latdiag.model.errors import UsageFault
from latdiag.model.text import shown


@contextlib.contextmanager
def target_of(text: str, spans_to: str | None = None) -> Iterator[str]:
    """The URL behind a target: ``demo:NAME`` is a server of its own for the time of the run,
    which sends its spans to ``spans_to`` (a collector's URL).

    UsageFault for a NAME that there is not.
    """
    scheme, _, name = text.partition(":")
    if scheme != "demo":
        yield text
    elif name == "echo":
        from latdiag.sim.demo import running_echo

        with running_echo() as url:
            yield url
    else:
        from latdiag.sim.demo import params_of, running_demo

        try:
            params = params_of(name)
        except ValueError as fault:
            text = f"there is no target {shown(text, 60)}: {shown(fault, 200)}"
            raise UsageFault(text, "demo:queue, demo:echo, or the URL of a server") from fault
        with running_demo(name, params=params, otlp=spans_to) as url:
            yield url
