"""The parts of one device's conversation, which `xiaozhi/conversation/conversation.py` puts together.

`microphone` brings packets to words, and the `listener` brings both to the turn machine, without the device's
`own_voice`; `planning` and `intents` decide what a reply is made of; `answering` produces it behind a `gate`; `reply`
lets it out through the `pacer`; `replies` begins, interrupts and remembers them; `recollection` is what the
conversation knows; `saying` is what the server says unasked.
"""
