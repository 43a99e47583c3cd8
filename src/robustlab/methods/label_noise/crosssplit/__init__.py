"""CrossSplit (Kim, Baratin, Zhang, Lacoste-Julien, ICML 2023): less memorisation of wrong labels by splitting.

`targets` equations (1)-(6), `losses` (8)-(9), `schedule` (10), `settings` hyperparameters, `halves` the split and what
each turn is served, `record` diagnostics, `method` the algorithm. MixUp, (7), is `robustlab.data.transforms.augment.mixup`.
"""

from robustlab.methods.label_noise.crosssplit.crosssplit import CrossSplit

__all__ = ["CrossSplit"]
