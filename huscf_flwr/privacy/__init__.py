"""What can be found out about clients' data, by whom: attacks as strong as we can make them.

The server's, on what a client sends in an iteration (`observing`): `inversion`, by optimisation
against the parameters it handed out, `denoising` where clients add noise, and `decoder`, learned
from other images. On what is released: `membership` in the training images. On what fellows get:
`fellows`. `similarity` says how alike images are, `exposure` what was found of a client; `audit`
puts clients through the server's attacks, and `accounting` says what noise promises.
"""
