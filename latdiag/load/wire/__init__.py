"""Bytes on the wire and the instants at which they left and came."""
