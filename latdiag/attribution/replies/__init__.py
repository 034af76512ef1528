"""What replies state of their own request, as lengths of the components of its time."""
