"""Benches: real sockets, real Opus, real time. `python -m bench.NAME --help` explains each."""
