"""The training loop, learners, runtime, checkpoints and evaluation."""
