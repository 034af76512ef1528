"""Tests of ``latdiag.measurement.measure``."""
