"""Whether what spans make latdiag say is true: demo servers with faults, and their own books."""
