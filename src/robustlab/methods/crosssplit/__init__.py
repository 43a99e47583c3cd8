"""CrossSplit (Kim, Baratin, Zhang, Lacoste-Julien, ICML 2023): less memorisation of wrong labels by splitting the data.

`targets` implements equations (1)-(6), `losses` (8)-(9) and `schedule` (10); `settings` holds the hyperparameters,
`halves` the split and the batches of each turn, `record` the diagnostics, `method` the algorithm. MixUp, (7), is
`robustlab.data.augment.mixup`.
"""

from robustlab.methods.crosssplit.method import CrossSplit

__all__ = ["CrossSplit"]
