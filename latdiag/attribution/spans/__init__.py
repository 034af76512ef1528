"""What spans say of each request, as lengths of the components of its time."""
