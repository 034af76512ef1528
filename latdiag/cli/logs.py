"""Log lines on stderr, for ``-v``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TextIO

from latdiag.model.secrets import concealed
from latdiag.model.text import shown


def log_to_stderr(verbosity: int) -> Callable[[], None]:
    """Log lines of latdiag, and of nothing else: other libraries log headers. Returns the undo."""

    class _Safe(logging.StreamHandler[TextIO]):
        def format(self, record: logging.LogRecord) -> str:
            return shown(concealed(super().format(record)), 1000)

        def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
            """logging's own would print the raw message."""

    handler = _Safe()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("latdiag")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)
    logger.propagate = False

    def undo() -> None:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True

    return undo
