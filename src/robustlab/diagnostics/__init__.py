"""Quantities measured beside training, one file each."""
