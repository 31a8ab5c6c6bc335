"""Voice activity: Silero over all talking devices, batched."""
