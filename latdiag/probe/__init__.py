"""What a probe asks next, and the processes that ask it."""
