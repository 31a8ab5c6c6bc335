"""Pure decisions about one turn: when speech begins and ends, when a reply may start, what was heard.

No I/O, no clock, no loop: audio and time are passed in.
"""
