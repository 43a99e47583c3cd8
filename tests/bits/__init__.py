"""What every method computes, recorded to the bit: `python -m tests.bits record` and `python -m tests.bits compare`."""
