"""What `xiaozhi check` looks at: one small function for each thing, each returns what it found."""
