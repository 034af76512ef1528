"""Tests of ``latdiag.attribute.measure``."""
