"""CrossSplit (Kim, Baratin, Zhang, Lacoste-Julien, ICML 2023): less memorisation of wrong labels by splitting.

`targets` holds equations (1)-(6), `objective` (8)-(9), `timeline` (10), `crosssplit_settings` the hyperparameters,
`halves` the split and the batches of each turn, `split_step` one training step, `label_record` what became of the
labels, `crosssplit` the method. Equation (7), MixUp, is `mixup` in `robustlab.data.transforms.augment`.
"""
