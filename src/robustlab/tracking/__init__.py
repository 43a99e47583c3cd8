"""Trackers of metrics: JSON lines, W&B, TensorBoard, the terminal."""
