"""The wire: frames of named tensors between a client and the server, whatever they are of.

`frames` is what is sent, `channel` how either end sees it, `grpc` the way over the network.
"""
