"""What tests share: small networks, artifacts, servers, browsers."""
