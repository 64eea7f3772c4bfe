"""A person sitting in front of the world model: command line, sessions, and what shows them."""
