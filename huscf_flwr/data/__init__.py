"""Where images come from: `sources` reads or renders a domain, `partition` deals it to clients.

What a source is read or rendered by has a module of its own: `npz`, `folder`, `torchvision_sets`,
`letters`, `textures`. They give pixels as they are; `format` brings them to the run's.
"""
