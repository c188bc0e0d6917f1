"""KLD-weighted clustered federated learning: the paper's mathematics, as pure functions.

`clusters` says which clients belong together, `neighbours` also how many clusters there are,
`kld_weights` how much each one counts; `averages` puts their parameters together.
"""
