"""Moving in: what another server's settings are with us."""
