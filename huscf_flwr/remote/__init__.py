"""Runners that are processes of their own, on machines of their own: several make one server.

The strategy owns the server's blocks. When a round opens it sends each runner the blocks, their
optimisers' moments and who its clients are; when the round closes it gets them back. So a runner
keeps nothing from round to round, and may be started anew at any time.

`control` is the way between them, `messages` what goes along it, `station` the runner's end and
`runners` the strategy's; `peers` and `joint` make one training of what several runners compute.
"""
