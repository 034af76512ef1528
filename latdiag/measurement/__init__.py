"""What the client saw of each request, and the metrics of it."""
