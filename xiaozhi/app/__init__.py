"""The process: wiring, serving, signals, the service manager."""
