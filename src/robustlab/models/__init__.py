"""Networks behind one signature."""
