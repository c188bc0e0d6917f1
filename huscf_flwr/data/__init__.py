"""Where images come from: `sources` reads or renders a domain, `partition` deals it to clients."""
