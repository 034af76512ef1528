"""latdiag: where the latency of an LLM endpoint goes.

Nothing heavy is imported here; see the packages:
``model`` what is true, ``stats`` numbers in and estimates out, ``store`` runs on disk,
``load`` requests and stamps, ``attribute`` rows in and breakdown out, ``report`` for people,
``sim`` servers with known truth, ``cli`` one file a verb.
"""

__version__ = "0.1.0"
