"""The table of caveats: complete, safe to print, and strict about its facts."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latdiag.model.caveats import CAVEATS, caveat, facts_of
from latdiag.model.document import document

#: A fact that every template takes: shares and nanoseconds are numbers.
_SOME = 0.25


@pytest.mark.parametrize("code", CAVEATS)
def test_every_row_has_a_text_a_remedy_and_a_meaning_that_are_sentences(code: str) -> None:
    row = CAVEATS[code]
    assert row.code == code
    shown = caveat(code, **dict.fromkeys(facts_of(row), _SOME))
    assert set(document(shown)) == {"code", "text", "remedy"}
    assert shown.text.endswith(".") and "{" not in shown.text + shown.remedy
    for text in (row.text, row.remedy, row.meaning):
        assert text == " ".join(text.split()) and len(text) > 5
    assert row.meaning.endswith(".") and row.meaning[0].isupper()


def test_facts_come_with_their_units() -> None:
    warm = caveat("LD105", share=0.0314, rows=7, requests=240)
    assert "3.1 % of the prompt tokens" in warm.text and "(7 of 240 requests)" in warm.text
    assert "90 %" in caveat("LD105", share=0.9, rows=7, requests=240).text
    connect = caveat("LD502", connect=12_345_678, more="Keep them.")
    assert "includes 12.3 ms of DNS" in connect.text


def test_a_remedy_can_hold_a_fact() -> None:
    assert "640 requests" in caveat("LD302", n=12, needs=640).remedy


@pytest.mark.parametrize("facts", [{}, {"failed": 1}, {"failed": 1, "sent": 2, "more": 3}])
def test_facts_that_are_not_those_of_the_row_are_refused(facts: dict[str, int]) -> None:
    with pytest.raises(TypeError, match=r"LD101 takes \['failed', 'sent'\]"):
        caveat("LD101", **facts)


def test_an_unknown_code_is_refused() -> None:
    with pytest.raises(KeyError):
        caveat("LD999")


@given(st.text(max_size=300))
def test_a_hostile_fact_cannot_act_on_a_terminal(model: str) -> None:
    hostile = model + "\x1b[31m\u202e{offered}"
    text = caveat("LD108", model=hostile, place="the first", offered=3).text
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)
    assert "the first in the server's list of 3" in text and len(text) < 400
