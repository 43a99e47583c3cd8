"""Signatures read from source agree with those of the imported objects, and say where a name does not exist."""

import inspect
import subprocess
import sys
import textwrap

import pytest

from robustlab.config.static import sources
from robustlab.config.static.module_specs import find_spec
from robustlab.config.static.signature import signature
from robustlab.config.static.sources import NotThereError, locate

STATIC = [
    "torch.optim.SGD",
    "torch.optim.AdamW",
    "torch.optim.RMSprop",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.optim.lr_scheduler.OneCycleLR",
    "torch.optim.lr_scheduler.StepLR",
    "timm.optim.Lamb",
    "timm.optim.NAdamW",
    "timm.scheduler.CosineLRScheduler",
    "timm.create_model",
    "torchvision.models.resnet50",
    "torchvision.transforms.v2.RandomCrop",
    "robustlab.methods.erm.ERM",
    "robustlab.data.sources.digits.Digits",
    "robustlab.models.small_cnn.small_cnn",
]


@pytest.mark.parametrize("target", STATIC)
def test_source_and_import_agree(target: str):
    locate(target)  # found in source, no import needed
    module, _, name = target.rpartition(".")
    made = getattr(sys.modules.get(module) or __import__(module, fromlist=[name]), name)
    expected = inspect.signature(made).parameters
    found = signature(target)
    named = [p for p in expected.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    assert list(found.fields) == [p.name for p in named]
    assert [name for name, field in found.fields.items() if field.required] == [
        p.name for p in named if p.default is p.empty
    ]
    assert found.open == any(p.kind is p.VAR_KEYWORD for p in expected.values())
    for parameter in named:
        if isinstance(parameter.default, int | float | str | bool | None | list | tuple):
            kind = found.fields[parameter.name].kind()
            assert kind.fits(parameter.default), (parameter, str(kind))


def test_nothing_is_imported():
    code = f"""
        import sys
        from robustlab.config.static.signature import signature
        for target in {STATIC!r}:
            fields = signature(target).fields
            [field.kind() for field in fields.values()]
        heavy = [name for name in ("torch", "timm", "torchvision", "numpy", "sklearn") if name in sys.modules]
        assert not heavy, heavy
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("target", "name", "near"),
    [
        ("torch.optim.SDG", "SDG", "SGD"),
        ("torch.optin.SGD", "optin", "optim"),
        ("robustlab.methods.emr.ERM", "emr", "erm"),
        ("robustlab.methods.erm.ERN", "ERN", "ERM"),
        ("nosuchpackage.module.Class", "module", ""),
        ("ERM", "", ""),
        ("robustlab.methods.erm.ERM.nothing.x", "", ""),
        ("not a name", "", ""),
    ],
)
def test_what_does_not_exist_is_said_with_what_does(target: str, name: str, near: str):
    with pytest.raises(NotThereError) as caught:
        signature(target)
    assert not near or near in caught.value.names
    assert not near or caught.value.name == name


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package as users write one: re-exports, inheritance, keywords handed on, nested dataclasses, aliases."""
    files = {
        "mine/__init__.py": "from .parts import Child as Renamed, made\nfrom .stars import *\n",
        "mine/parts.py": """
            from __future__ import annotations
            import dataclasses
            from dataclasses import dataclass
            from functools import partial
            from typing import ClassVar, Union
            from mine.types import Rate

            @dataclass
            class Settings:
                rate: Rate
                steps: int = 3
                kind: ClassVar[str] = "x"
                words: list[str] = dataclasses.field(default_factory=list)
                hidden: int = dataclasses.field(init=False, default=1)

            @dataclass
            class More(Settings):
                extra: "Union[int, str]" = 1

            class Base:
                def __init__(self, width: int, depth: int = 2, *, name=None, flag=False): ...
                @classmethod
                def build(cls, path: str): ...

            class Child(Base):
                def __init__(self, more: More | None, rate=1, **kwargs):
                    super().__init__(width=3, **kwargs)

            class Silent(Base): ...

            class Swallows(Base):
                def __init__(self, **kwargs):
                    print(kwargs)

            def function(a: tuple[int, int], /, b: int = None, *args, **kwargs): ...
            made = partial(function, b=1)
            alias = Child
        """,
        "mine/types.py": "Rate = float | None\n",
        "mine/stars.py": "def starred(value: bool = True): ...\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    for cached in (find_spec, sources.read_module, signature):
        cached.cache_clear()
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
def test_own_packages_are_read_as_well():
    child = signature("mine.Renamed")
    assert set(child.fields) == {"more", "rate", "depth", "name", "flag"}, "width is given by the class itself"
    assert not child.open
    assert signature("mine.parts.alias").fields.keys() == child.fields.keys()
    assert set(signature("mine.parts.Silent").fields) == {"width", "depth", "name", "flag"}
    assert signature("mine.parts.Swallows").open
    assert list(signature("mine.starred").fields) == ["value"]
    assert list(signature("mine.parts.Base.build").fields) == ["path"]
    assert signature("mine.parts.function").open
    assert "mine" not in sys.modules


@pytest.mark.usefixtures("package")
def test_kinds_of_own_packages():
    more = signature("mine.Renamed").fields["more"].kind()
    assert more.fits(None)
    assert more.fits({"rate": None, "extra": "x"})
    assert list(more.problems({"rate": "x", "step": 1}, "m")) == [
        "m.rate: expected a number or null, got 'x'",
        "m.step: More has no argument 'step'; did you mean 'steps'?",
    ]
    fields = signature("mine.Renamed").fields
    assert fields["rate"].kind().fits(0.5), "a default of 1 may stand for any number"
    assert not fields["rate"].kind().fits("fast")
    assert not fields["flag"].kind().fits(1)
    assert signature("mine.parts.function").fields["b"].kind().fits(None), "None is the default"


@pytest.mark.usefixtures("package")
def test_what_source_does_not_tell_is_imported():
    assert set(signature("mine.made").fields) == {"a", "b"}
    assert "mine" in sys.modules
    assert list(signature("math.fsum").fields) == ["seq"], "an extension module has no source"
