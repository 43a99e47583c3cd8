"""Where metrics go: JSONL, W&B, TensorBoard, the terminal."""
