"""The gate's verdict for people and for CI, each face a pure function of it.

``text`` is for a terminal, ``markdown`` and ``github`` for pull requests, ``junit`` and ``gitlab``
for CI servers.
"""
