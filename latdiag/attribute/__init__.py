"""Rows in, numbers and their causes out. Pure: no sockets, files or clocks in this package."""
