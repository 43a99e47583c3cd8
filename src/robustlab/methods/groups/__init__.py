"""Methods for data with spurious correlations."""
