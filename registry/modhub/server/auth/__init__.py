"""Authentication and authorization: accounts and tokens, sessions, signed URLs."""
