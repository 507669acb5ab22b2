"""What the router reads, and how its reply is read."""
