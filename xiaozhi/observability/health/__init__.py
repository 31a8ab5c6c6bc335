"""Whether the process is well: alerts with hysteresis, and what `/health` shows."""
