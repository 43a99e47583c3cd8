"""Make kinds of values from type annotations at run time."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from robustlab.config.kinds import ANYTHING, Choice, Either, Items, Kind, Range, Scalar, Table, tuple_kind
from robustlab.config.records import Field, Record

_SCALARS: dict[Any, Kind] = {int: Scalar(int), float: Scalar(float), bool: Scalar(bool), str: Scalar(str)}
_LISTS = (list, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)


def from_type(annotation: Any) -> Kind:
    """Return the kind of a type annotation."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (None, type(None)):
        return Scalar(None)
    if isinstance(annotation, Kind):
        return annotation
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if annotation is Path:
        return Scalar(str)
    if origin is Annotated:
        return _annotated(arguments)
    if origin is Literal:
        return Choice(arguments)
    if origin in (Union, types.UnionType):
        return Either(tuple(from_type(argument) for argument in arguments))
    if annotation in _LISTS or origin in _LISTS:
        return Items((from_type(arguments[0]) if arguments else ANYTHING,))
    if annotation is tuple or origin is tuple:
        return tuple_kind(
            [from_type(a) for a in arguments if a is not Ellipsis], Ellipsis in arguments or not arguments
        )
    if annotation in (dict, collections.abc.Mapping) or origin in (dict, collections.abc.Mapping):
        return Table(*map(from_type, reversed(arguments))) if arguments else Table(ANYTHING)
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return from_dataclass(annotation)
    return ANYTHING


def _annotated(arguments: tuple[Any, ...]) -> Kind:
    for extra in arguments[1:]:
        if isinstance(extra, Kind):
            return extra
    kind = from_type(arguments[0])
    limits = tuple(extra for extra in arguments[1:] if isinstance(extra, Range))
    return dataclasses.replace(kind, limits=limits) if limits and isinstance(kind, Scalar) else kind


@cache
def from_dataclass(cls: type) -> Record:
    """Return the kind of a dataclass, one key per field. `cls.title` names it; `cls.open_to_more` allows other keys."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {
        field.name: Field(
            lambda hint=hints[field.name]: from_type(hint),
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(cls)
        if field.init
    }
    return Record(getattr(cls, "title", cls.__name__), fields, open=getattr(cls, "open_to_more", False))
