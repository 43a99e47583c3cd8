"""What every method computes, recorded to the bit.

    python -m tests.bits compare                            # all tiny runs; exit code 1 if one differs from its record
    python -m tests.bits compare --only 'demp*,crosssplit'  # some of them
    python -m tests.bits record --only demp                 # after a change that is meant to change what DemP computes

Last bits depend on the processor and on libraries. On another kind of machine than the one in recorded.json, runs must
have the same folders, enter their special branches and end with similar metrics. To compare to the bit there, record
the commit before the change with `record --record FILE` and then `compare --record FILE`.
"""
