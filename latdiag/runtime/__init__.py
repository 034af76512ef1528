"""Child processes of ours: how they start, talk over one channel, hear signals, and end."""
