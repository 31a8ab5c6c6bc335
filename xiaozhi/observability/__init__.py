"""What lets people and programs look into a running server: metrics, health, alerts, logs and spans."""
