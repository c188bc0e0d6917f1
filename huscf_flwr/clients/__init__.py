"""The Flower clients: what a device does when the strategy asks it for its properties or a round.

`base` is what all share. `split` and `whole` are the clients of HuSCF and FedGAN, `discriminating`
those of methods with the generator on the server, `mixing` and `two_generators` those of PFL-GAN-
and HFL-GAN-style training. `exchanging` is what those share that train with the server,
`over_channel` trains a round with a server elsewhere, `own_data` is where a node's own images are
read.
"""
