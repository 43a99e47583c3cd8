"""Composition, strict checking and naming of configurations."""
