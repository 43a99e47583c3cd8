"""The command `train`: compose, check, run; errors become one message and an exit code. Only a run imports torch."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robustlab.config.compose import import_from_here, session
from robustlab.config.default_experiment import with_default_experiment
from robustlab.config.hydra_session import CONFIG_NAME
from robustlab.core.closed_pipe import QuietlyClosed
from robustlab.core.errors import EXIT_PREEMPTED, ConfigError, NumericalError, UserError
from robustlab.core.invocation import hint, same_command
from robustlab.core.world import World

if TYPE_CHECKING:
    from hydra._internal.hydra import Hydra


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: `sys.argv[1:]`) and return the exit code (see `robustlab.core.errors`).

    The first process of a run also writes the code to the file that ROBUSTLAB_EXIT_CODE_FILE names, if it is set:
    torchrun, which ends with 1 whatever its processes end with, does not hand it on.
    """
    with QuietlyClosed() as ending:
        ending.code = _composed_and_run(sys.argv[1:] if argv is None else list(argv))
    path = os.environ.get("ROBUSTLAB_EXIT_CODE_FILE")
    if path and World.from_environment().is_main:
        Path(path).write_text(f"{ending.code}\n", encoding="utf-8")
    return ending.code


def _composed_and_run(argv: list[str]) -> int:
    """Return the exit code; what is wrong becomes one message."""
    from robustlab.config.check import refuse
    from robustlab.config.flags import explain_unknown, read_flags, train_parser
    from robustlab.config.yaml_files import readable

    parser = train_parser()
    import_from_here()
    try:
        args, unknown = read_flags(parser, argv)
        _refuse_contradictions(args)
        with session([args.config_dir] if args.config_dir else [], config_path=args.config_path) as hydra:
            refuse(explain_unknown(hydra, parser, unknown, with_default_experiment(args.overrides)) if unknown else [])
            with readable(hydra), _explained(hydra, args):
                if _answered(hydra, args, parser):
                    return 0
                from robustlab.launch.start import launch

                name = args.config_name or CONFIG_NAME
                return launch(hydra, args.overrides, config_name=name, multirun=args.multirun)
    except UserError as error:
        # A command that cannot work, and numbers gone wrong, are the same on all: one process says it.
        if _is_main() or not isinstance(error, ConfigError | NumericalError):
            print(f"train: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        again = same_command("resume=false" not in argv)
        print(f"train: interrupted; {again} goes on from the last checkpoint", file=sys.stderr)
        return EXIT_PREEMPTED


def _is_main() -> bool:
    try:
        return World.from_environment().is_main
    except ConfigError:
        return True  # the error at hand


def _refuse_contradictions(args: Namespace) -> None:
    modes = [args.run, args.multirun, args.cfg is not None, args.info is not None, args.shell_completion]
    if sum(map(bool, modes)) > 1:
        raise ConfigError("choose one of --run, --multirun, --cfg, --info and --shell-completion")
    if args.resolve and args.cfg is None and not args.help:
        raise ConfigError(f"--resolve goes with --cfg, e.g. {hint('train', '--cfg', 'job', '--resolve')}")
    if args.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun is not supported: the same command again resumes or repeats a run")


@contextlib.contextmanager
def _explained(hydra: Hydra, args: Namespace) -> Iterator[None]:
    """Put what Hydra says of overrides that do not compose into words that say how to fix them."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from robustlab.config.check import refuse
    from robustlab.config.explain import clashes, explain, no_options

    if not args.shell_completion:
        if args.config_name in (None, CONFIG_NAME) and args.config_path is None:
            args.overrides = with_default_experiment(args.overrides)
        refuse([*no_options(hydra, args.overrides), *clashes(hydra, args.overrides)])
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        refuse(explain(hydra, args.overrides, error, sweep=args.multirun))


def _answered(hydra: Hydra, args: Namespace, parser: ArgumentParser) -> bool:
    """Print what a flag asks for in place of a run, if one does."""
    name = args.config_name or CONFIG_NAME
    if args.help:
        _list_groups_quickly(hydra)
        hydra.app_help(config_name=name, args_parser=parser, args=args)
    elif args.hydra_help:
        hydra.hydra_help(config_name=name, args_parser=parser, args=args)
    elif args.cfg:
        _show(hydra, args, name)
    elif args.info:
        logging.raiseExceptions = False  # Hydra logs it line by line: a closed pipe would give a trace for each
        hydra.show_info(args.info, config_name=name, overrides=args.overrides)
    elif args.shell_completion:
        hydra.shell_completion(config_name=name, overrides=args.overrides)
    else:
        return False
    return True


def _list_groups_quickly(hydra: Hydra) -> None:
    """Let the help list all groups in half the time: Hydra copies its whole search path for each folder it lists."""
    from hydra.core.object_type import ObjectType

    repository = hydra.config_loader.repository  # type: ignore[attr-defined]

    def options(group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG, *_, **__) -> list[str]:
        found = repository.get_group_options(group_name, results_filter)
        return [name for name in found if not name.startswith("_")]  # _name: a part that other options share

    every_group = hydra.config_loader.list_groups

    def groups(parent_name: str) -> list[str]:
        return [name for name in every_group(parent_name) if parent_name or name != "overlay"]  # chosen by itself

    hydra.config_loader.get_group_options = options  # type: ignore[method-assign]
    hydra.config_loader.list_groups = groups  # type: ignore[method-assign]


def _show(hydra: Hydra, args: Namespace, name: str) -> None:
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # what Hydra says before it exits with 1 is said below
            hydra.show_cfg(name, args.overrides, cfg_type=args.cfg, package=args.package, resolve=args.resolve)
    except SystemExit as stop:
        raise ConfigError(f"--package {args.package}: the configuration has no such group or key") from stop


if __name__ == "__main__":
    sys.exit(main())
