"""What servers counted of all requests together, handed out to each of them."""
