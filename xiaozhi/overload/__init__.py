"""Graceful pressure: what the process measures of its own load, and what it gives up first."""
