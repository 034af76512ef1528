"""Judges the client against a truth that it did not measure itself.

A streaming server of its own process records when it sent each chunk; scorers join that to what
a client stored. Nothing here imports latdiag: a shared mistake would cancel out.
"""
