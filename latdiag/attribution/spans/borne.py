"""What replies stated, as values of the spans that bear it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from latdiag.attribution.spans.columns import Spans


def with_replies(spans: Spans, stated: Mapping[str, NDArray[np.float64]]) -> Spans:
    """Joined spans, with what replies stated of their requests among their values.

    ``stated``: by the signal's foreign name, one entry a request, in the signal's unit, NaN where
    a reply did not say it.
    """
    values = {name: column[spans.row] for name, column in stated.items()}
    return replace(spans, values=spans.values | values)
