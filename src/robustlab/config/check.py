"""Check a composed configuration strictly and report all errors at once, before reading data or importing torch."""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, ValueNode
from omegaconf.errors import OmegaConfBaseException

from robustlab.config.dotted import flat
from robustlab.config.kinds import MISSING, is_node
from robustlab.config.layouts import todays_key, todays_target
from robustlab.config.rules import RULES, rules_for
from robustlab.config.schedules import filled
from robustlab.config.schema import GIVEN, LABELS, Config
from robustlab.config.static.contracts import contract_problem, misplaced
from robustlab.config.static.signature import signature
from robustlab.config.static.sources import NotThereError
from robustlab.config.static.typehints import from_dataclass
from robustlab.config.wording import did_you_mean, show
from robustlab.core.errors import ConfigError


def check(cfg: DictConfig) -> None:
    """Raise one `ConfigError` that lists every problem in a composed configuration, if there is any."""
    refuse(problems(cfg))


def refuse(found: Sequence[str]) -> None:
    """Raise one `ConfigError` that lists all messages, if there are any."""
    messages = list(dict.fromkeys(found))
    if messages:
        raise ConfigError(
            messages[0]
            if len(messages) == 1
            else "\n  - ".join((f"{len(messages)} problems in the configuration:", *messages))
        )


def problems(cfg: DictConfig) -> list[str]:
    """Return one message per problem: keys, types, bounds, targets and contradictory settings."""
    return inspect(cfg)[1]


def inspect(cfg: DictConfig) -> tuple[Mapping[str, Any], list[str]]:
    """Return the plain, resolved settings (`MISSING` where a value does not resolve) and the messages of `problems`."""
    reader = _Reader(dotted_keys(OmegaConf.to_container(cfg)))
    plain = reader.read(cfg, "")
    first: dict[str, str] = {}  # one message per key: the first is the most precise
    for message in (
        *reader.found,
        *misplaced(plain),
        *_values_of_nothing(plain),
        *from_dataclass(Config).check(plain, ""),
        *_targets(plain, ""),
        *_not_finite(plain, ""),
    ):
        first.setdefault(message.partition(": ")[0], message)
    repeated = {where for where, keys in reader.sources.items() if keys & first.keys()}
    found = [_with_elsewhere(message, plain) for where, message in first.items() if where not in repeated]
    found = found or list(first.values())  # keys that refer to each other in a circle
    if not found:
        for rule in (*RULES, *rules_for(plain["method"]["_target_"])):
            found += rule(plain)
    return plain, found


class _Reader:
    """Reads a configuration as plain values.

    - found: messages for values that are unset or do not resolve; `MISSING` takes their place.
    - sources: key with references -> the keys it refers to, whose errors it would repeat.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        """Keep all dotted `keys`, one of which a broken reference may have meant."""
        self.found: list[str] = []
        self.keys = list(keys)
        self.sources: dict[str, frozenset[str]] = {}

    def read(self, node: Any, where: str) -> Any:
        """Return the plain value of a container at the dotted key `where`."""
        if node._is_none():
            return None
        if isinstance(node, DictConfig):
            return {str(key): self._item(node, key, f"{where}.{key}" if where else str(key)) for key in node}
        return [self._item(node, index, f"{where}[{index}]") for index in range(len(node))]

    def _item(self, parent: Any, key: Any, where: str) -> Any:
        node = parent._get_node(key)
        if isinstance(node, ValueNode):
            value = node._value()
            if not isinstance(value, str) or not ("${" in value or value == MISSING):
                return value  # fast path: OmegaConf's own lookup takes a third of the time of checking a sweep
        if OmegaConf.is_missing(parent, key) and not OmegaConf.is_interpolation(parent, key):
            self.found.append(f"{where}: required but not set; add {where}=<value>")
            return MISSING
        if OmegaConf.is_interpolation(parent, key):
            self.sources[where] = frozenset(re.findall(r"\$\{([\w.]+)\}", str(parent._get_node(key)._value())))
        try:
            value = parent[key]
        except OmegaConfBaseException as error:
            if not (
                where == "paths.run_dir" and self.found
            ):  # its name depends on all settings, including the broken ones
                self.found.append(f"{where}: {str(error).splitlines()[0]}{self._near(error)}")
            return MISSING
        return self.read(value, where) if OmegaConf.is_config(value) else value

    def _near(self, error: OmegaConfBaseException) -> str:
        missing = re.match(r"Interpolation key '([^']+)' not found", str(error))
        return did_you_mean(missing[1], self.keys) if missing else ""


def _values_of_nothing(plain: Mapping[str, Any]) -> Iterator[str]:
    """Yield a message for each value set below a key that the chosen option leaves null, as noise=none does."""
    for group, part, example in (("noise", "model", "symmetric"), ("scheduler", "schedule", "cosine")):
        node = plain.get(group)
        values = node.get(part) if isinstance(node, Mapping) else None
        if isinstance(values, Mapping) and values and "_target_" not in values:
            keys = ", ".join(f"{group}.{part}.{key}" for key in values)
            yield (
                f"{group}.{part}: null with {group}=none, so {keys} cannot be set; also choose another {group}, "
                f"e.g. {group}={example}"
            )


def _not_finite(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _not_finite(item, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where}: expected a finite number, got {value}"


def _targets(value: Any, where: str) -> Iterator[str]:
    """Yield the problems of every group with a `_target_` in a plain configuration."""
    if isinstance(value, Mapping):
        if is_node(value):
            yield from _target(value, where)
        for key, item in value.items():
            yield from _targets(item, f"{where}.{key}" if where else key)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _targets(item, f"{where}[{index}]")


def _target(node: Mapping[str, Any], where: str) -> Iterator[str]:
    target = node["_target_"]
    if target == MISSING:
        return
    if not isinstance(target, str):
        yield f"{where}._target_: expected a dotted name such as package.module.Class, got {show(target)}"
        return
    moved = todays_target(target)
    if moved is not None:
        yield f"{where}._target_: {target} has moved; write {moved}"
        return
    try:
        taken = signature(target)
    except NotThereError as error:
        yield f"{where}._target_: {error}{did_you_mean(error.name, error.names)}"
        return
    given = GIVEN.get(where, frozenset())
    wrong = contract_problem(target, where)
    if wrong:
        yield f"{where}._target_: {wrong}"
        return
    yield from (f"{where}.{key}: set by the run itself; leave it out" for key in sorted(given & set(node)))
    for name in sorted(given - set(taken.fields)) if not taken.open else ():
        yield f"{where}._target_: {target} must take the argument '{name}'"
    partial = node.get("_partial_", False)
    if given and where != "model" and partial is not True:
        yield (
            f"{where}._partial_: expected true, got {show(partial)}; add `_partial_: true` beside its _target_, since "
            f"the run gives {', '.join(sorted(given))}"
        )
    elif not isinstance(partial, bool):
        yield f"{where}._partial_: expected true or false, got {show(partial)}"
    arguments = {key: item for key, item in node.items() if key not in LABELS and key not in given}
    if where == "scheduler.schedule":
        arguments = filled(arguments, 1)
    for key in [key for key in arguments if key not in taken.fields and not taken.open]:
        moved = todays_key(target, where, key)
        if moved is not None:
            words = " ".join(f"{name}={show(value)}" for name, value in flat(arguments.pop(key), moved).items())
            yield f"{where}.{key}: has moved; write {words}"
    loose = "_args_" in node or (partial is True and not given)
    yield from taken.check(arguments, where, given=given, partial=loose)


def _with_elsewhere(message: str, plain: Mapping[str, Any]) -> str:
    """Add a suggestion from elsewhere in the configuration to a message about an unknown key that has none yet."""
    where, _, rest = message.partition(": ")
    if not re.search(" has no (key|argument) '", rest) or "did you mean" in rest:
        return message
    last = where.rpartition(".")[2]
    places = sorted((key for key in dotted_keys(plain) if key != where), key=lambda key: -_shared(key, where))
    by_name: dict[str, str] = {}
    for place in places:
        by_name.setdefault(place.rpartition(".")[2], place)
    near = difflib.get_close_matches(last, [name for name in by_name if name != "_target_"], n=1, cutoff=0.8)
    return f"{where}: {rest.partition('; it has ')[0]}; did you mean '{by_name[near[0]]}'?" if near else message


def _shared(one: str, other: str) -> int:
    pairs = zip(one.split("."), other.split("."), strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def dotted_keys(value: Any, where: str = "") -> Iterator[str]:
    """Yield the dotted key of every group and value in plain settings located at `where`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f"{where}.{key}" if where else key
            yield from dotted_keys(item, f"{where}.{key}" if where else key)
