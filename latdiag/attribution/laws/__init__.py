"""What designed requests teach of a server that says nothing."""
