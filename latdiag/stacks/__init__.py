"""What each serving stack calls things: data, one file a stack.

``signal`` says how a signal is described, ``catalogue`` finds all stacks (those of other packages
by the entry point ``latdiag.stacks`` too).
"""
