"""Batched augmentation with an independent draw per sample."""
