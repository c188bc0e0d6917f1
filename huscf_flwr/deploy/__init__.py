"""A deployment on machines that reach each other over a network that others may reach, too.

`kits` makes what each machine needs, `serve` runs the server's programs, and `gateway` is what the
network sees of Flower.
"""
