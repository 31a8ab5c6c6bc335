"""Channels between stages, worker pools, and what waits to be closed."""
