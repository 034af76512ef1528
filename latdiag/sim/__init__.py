"""Servers with known truth, to try latdiag and to test it. Reached by URL only."""
