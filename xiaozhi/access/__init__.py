"""Who may connect: tokens, activation, limits, pages, TLS."""
