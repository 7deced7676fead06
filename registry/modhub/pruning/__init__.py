"""Which channels of a trunk can go, and what makes up for them."""
