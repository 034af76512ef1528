"""A test of latency, as it may stand beside others."""

from __future__ import annotations


def test_the_candidate_is_not_slower(latdiag_gate):
    latdiag_gate("--isl", "128", "--osl", "32").check()
