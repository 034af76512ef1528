"""Makes requests and stamps instants."""
