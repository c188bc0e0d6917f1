"""Running procedures: which clients share an iteration, when it begins, and who is waited for.

`cohorts` and `patience` decide, `session` is one client's part in a round. `Runner` serves clients
that connect, in a thread of its own; `InProcessRunner` drives clients that are objects of this
process.
"""
