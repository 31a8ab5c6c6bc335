"""What the model may call: built-in tools, the device's own, and those of external MCP servers."""
