"""Negative control: logs to W&B the plain way, from the training loop. `python -m tests.faults.careless_wandb`."""

import wandb


def main() -> None:
    run = wandb.init(project="careless", settings=wandb.Settings(init_timeout=3, silent=True))
    for step in range(10):
        run.log({"loss": 1 / (step + 1)}, step=step)
    run.finish()


if __name__ == "__main__":
    main()
