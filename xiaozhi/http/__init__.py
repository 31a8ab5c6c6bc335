"""Routes that are not a device's socket: OTA, push, vision, MCP, health, metrics."""
