"""Configurations of what runs, watches and fronts the server, written from its own settings."""
