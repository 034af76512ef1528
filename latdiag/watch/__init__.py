"""Production traffic, watched: spans in, where the time goes now and what changed out."""
