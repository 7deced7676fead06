"""A composition's project: modhub.toml, the resolver, and modhub.lock."""
