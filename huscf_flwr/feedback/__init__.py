"""The procedures of methods whose generator is on the server: it sends generated images, and each
client's discriminator sends back how they would have to change. `exchanges` says what crosses,
`discriminators` are the clients' halves, `generator` is the server's."""
