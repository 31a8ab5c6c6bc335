"""What devices connect to: the protocol (sans-I/O), the WebSocket shell, the pacer, OTA and HTTP."""
