"""Recordings of others, as runs."""
