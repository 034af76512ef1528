"""Whether what probes say is true: demo servers with drawn faults, and their own books."""
