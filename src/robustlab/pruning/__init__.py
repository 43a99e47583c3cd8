"""Removal of units from networks while they train: who the units are, which are dead, surgery, cost."""
