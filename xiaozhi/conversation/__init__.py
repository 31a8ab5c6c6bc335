"""One device's conversation. `conversation` owns its turn: events come in, one table says what is done.

`speech_input` brings packets to words, without the device's own voice (`echo_guard`), and `heard` holds what was said
last; `planning` decides what a reply is made of, from the `context` that the conversation knows; `reply` produces it
behind a gate and lets it out through the `pacer`; `saying` is a sentence of the server's own; `turn_records` keeps what
is over. `engines` and `services` are what all conversations share, `caches` among them.
"""
