"""Models of label noise, and the labels that a training split is trained on."""
