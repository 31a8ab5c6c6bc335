"""How many nodes so many devices need: a model of one node from measured costs. Pure, but for reading the figures.

`costs` are the measured figures, `queueing` says how long an utterance waits for a recogniser, `model` puts them
together for a number of devices.
"""
