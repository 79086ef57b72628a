"""Everything with state across time, without I/O, clock, randomness or logging.

Time and jitter are arguments; failures are values or typed errors. The layers above wait, log and
send; this one decides.
"""
