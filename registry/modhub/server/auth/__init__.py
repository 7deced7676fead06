"""Who may come in, and what they may do: accounts and tokens, sessions, signed addresses."""
