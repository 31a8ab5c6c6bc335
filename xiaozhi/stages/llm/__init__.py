"""The reply: chat models and the built-in responder."""
