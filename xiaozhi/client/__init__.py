"""A complete device in software: the manners of the firmware over a real socket.

Drives `xiaozhi talk`, tests and bench.
"""
