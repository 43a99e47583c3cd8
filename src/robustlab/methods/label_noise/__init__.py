"""Methods for data with wrong labels."""
