"""Whatever replies state, of waits of any length: the parts add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from latdiag.measurement.frame import Frame
from tests.profiles import examples

from .reply_rows import MS, STACKS, exact, said, waits

FIELDS = sorted(
    {s.foreign for stack in STACKS for s in stack.signals if s.kind == "reply" and s.covers}
)
ANY = st.one_of(st.just(float("nan")), st.floats(0, 6e8))
#: Short enough for most waits.
SHORT = st.floats(0, 3e7)


@st.composite
def anything(draw: Callable[..., object]) -> tuple[Frame, dict[str, NDArray[np.float64]]]:
    """Waits of any length, and replies that state anything up to what is read at all."""
    n = 12
    lengths = st.lists(
        st.one_of(st.integers(3 * MS, 400 * MS), st.integers(3 * MS, 60_000 * MS)),
        min_size=n,
        max_size=n,
    )
    seen = waits(n=n)
    kernel = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))  # type: ignore[arg-type]
    ttft = np.array(draw(lengths))  # type: ignore[arg-type]
    stream = np.array(draw(lengths)) - 3 * MS  # type: ignore[arg-type]
    first = seen.sent + ttft
    seen = replace(seen, first=first, last=first + stream, done=first + stream + MS)
    bounds = {"network_lo": seen.network, "network_hi": seen.network}
    seen = replace(seen, kernel=kernel, **({} if kernel.all() else bounds))
    names: Sequence[str] = draw(  # type: ignore[assignment, arg-type]
        st.lists(st.sampled_from(FIELDS), min_size=1, max_size=8, unique=True)
    )
    column = st.sampled_from((SHORT, SHORT, SHORT, ANY)).flatmap(
        lambda each: st.lists(each, min_size=n, max_size=n)
    )
    return seen, {name: np.array(draw(column)) for name in names}  # type: ignore[arg-type]


@examples(400)
@given(anything())
def test_whatever_is_stated_the_parts_add_up_and_only_the_rest_is_negative(
    given_: tuple[Frame, dict[str, NDArray[np.float64]]],
) -> None:
    seen, times = given_
    parts, facts = said(seen, times)
    assert facts.stated <= facts.requests == seen.n
    assert facts.told + facts.partial + facts.contradicted == facts.stated
    if parts is not None:
        exact(parts)
        assert len(parts.total) == facts.told
        most = 2 * np.maximum(5 * MS, 0.02 * parts.total) + MS
        assert (parts.parts["unattributed"] >= -most).all()
