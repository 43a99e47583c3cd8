"""Data sets, label noise, augmentation and loaders."""
