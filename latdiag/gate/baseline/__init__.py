"""Runs that were recorded earlier: where they are kept, and how a new run compares with them."""
