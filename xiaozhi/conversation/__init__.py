"""The parts of one device's conversation, which `xiaozhi/session.py` puts together.

`microphone` brings packets to words; `planning` and `intents` decide what a reply is made of; `answering` produces it
behind a `gate`; `reply` lets it out through the `pacer`; `recollection` is what the conversation knows; `saying` is
what the server says unasked.
"""
