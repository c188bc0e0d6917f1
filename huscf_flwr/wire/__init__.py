"""The wire: frames of named tensors between a client and the server, whatever they are of.

`frames` is what is sent, `channel` how either end sees it, `frame_server` and
`tls_channel` the ends of the way over the network, which is a `links.Link`.
"""
