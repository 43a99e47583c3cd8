"""From a finished run to a network that stands alone."""
