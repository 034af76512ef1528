"""A gate that is measured: what is sent to both arms, in which order, and when it is enough.

Before the load has forked its processes nothing heavy may be imported here; after that the parent
reads what was written, between blocks, while both arms are idle.
"""
