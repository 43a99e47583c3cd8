"""The points of a sweep: expanded, composed, checked, and their outcomes."""
