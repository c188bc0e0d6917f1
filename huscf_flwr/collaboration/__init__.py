"""Whose generated images help whom: `encoder` sees what sets of images have in common,
`similarity` makes weights of that."""
