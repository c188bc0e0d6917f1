"""Split training: one iteration in six exchanges between clients and the segment runner.

`frames` says what is exchanged, `client` and `segments` compute the two halves, `runner` batches
the clients that are training, one `session` each, and `channel` and `grpc` carry the frames
between them.
"""
