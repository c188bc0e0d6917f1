"""Planning the cuts: which blocks each device should hold, so that an iteration is fastest.

`costs` reads off a net what its blocks compute and send, `devices` says what the devices can do
(and `measure` finds out), `latency` predicts the time of an iteration, `search` looks for the cuts
that take the least, and `plan` is what comes of it. `timeline` draws it.
"""
