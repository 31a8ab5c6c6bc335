"""Voice activity: Silero over all talking devices in one batched run per tick."""
