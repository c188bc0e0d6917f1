"""Where what is known of real images is kept, for runs on the same data."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """A folder of the user's, which may not be there yet."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "huscf-flwr"
