"""`python -m huscf_flwr.cli` is `huscf`."""

import sys

from huscf_flwr.cli import main

sys.exit(main())
