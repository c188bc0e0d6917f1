"""Heterogeneous U-shaped split learning: the paper's procedure, in six exchanges.

`cuts` says where each client's nets are cut, `exchanges` what is exchanged, `heads_and_tails` is
the client's half, `segments` the server's.
"""
