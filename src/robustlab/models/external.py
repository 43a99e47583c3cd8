"""Wrap any image classifier of timm or torchvision in the interface of our own networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.core.errors import ConfigError
from robustlab.models.external_resnet import make_prunable
from robustlab.models.heads import TwoHeads
from robustlab.models.weights import HEADS, load_weights, read_weights

# Auxiliary classifiers change what forward returns while training, so they are off unless asked for.
AUXILIARY = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}
AUXILIARY_HEADS = ("aux1", "aux2", "AuxLogits")


def timm_model(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    architecture: str,
    pretrained: bool = False,
    weights: str | None = None,
    proj_dim: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> TwoHeads:
    """Return timm's `architecture` for images of `image_shape`, with heads on its pooled features.

    - pretrained: use timm's own weights (needs network access or timm's cache).
    - weights: a local file instead, see `read_weights`.
    - options: further arguments of `timm.create_model`.

    Raises `ConfigError` for an unknown architecture, weights that are unavailable or do not fit, and images that the
    architecture does not support.
    """
    import timm

    _check_weights(pretrained, weights)
    if not architecture.startswith(("hf-hub:", "hf_hub:")) and not timm.is_model(architecture.split(".")[0]):
        raise _unknown("timm", architecture, timm.list_models())
    model = _construct(
        f"timm's {architecture}",
        lambda: timm.create_model(
            architecture, pretrained=pretrained, num_classes=num_classes, in_chans=image_shape[0], **(options or {})
        ),
        pretrained=pretrained,
    )
    classifier = model.get_classifier()
    if not isinstance(classifier, nn.Linear):  # e.g. the two heads of a distilled transformer
        classifier = None
        model.reset_classifier(0)
    state = None if weights is None else read_weights(weights)

    def other(extra: Mapping[str, Any]) -> nn.Module:
        return timm.create_model(architecture, in_chans=image_shape[0], **{**(options or {}), **extra})

    _check_size(model, image_shape, other)
    return _wrap(model, classifier, state, f"model.weights {weights}", num_classes, image_shape, proj_dim)


def torchvision_model(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    architecture: str,
    pretrained: bool = False,
    weights: str | None = None,
    proj_dim: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> TwoHeads:
    """Return torchvision's `architecture` for images of `image_shape`, with heads on its pooled features.

    Arguments and errors are as in `timm_model`; `options` are further arguments of the architecture's constructor.
    Pretrained weights are torchvision's default ones. For images that are not RGB, the first convolution is replaced
    and RGB weights are adapted to it.
    """
    from torchvision import models

    _check_weights(pretrained, weights)
    if architecture not in models.list_models(module=models):
        raise _unknown("torchvision", architecture, models.list_models(module=models))
    settings = {**AUXILIARY.get(architecture, {}), **(options or {})}
    what = f"torchvision's {architecture}"
    model = _construct(
        what,
        lambda: models.get_model(architecture, weights=None, num_classes=num_classes, **settings),
        pretrained=False,
    )
    if image_shape[0] != 3:
        _replace_first_convolution(model, image_shape[0], what)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear or linear[-1].out_features != num_classes:
        raise ConfigError(f"{what} does not end in a linear classifier, so no heads can be put on its features")
    state, source = None, f"model.weights {weights}"
    if weights is not None:
        state = read_weights(weights)
    elif pretrained:
        published = models.get_model_weights(architecture)
        default = getattr(published, "DEFAULT")  # noqa: B009 (an alias that type checkers do not see)
        source = str(default)
        state = _construct(what, lambda: default.get_state_dict(progress=False, check_hash=True), pretrained=True)

    def other(extra: Mapping[str, Any]) -> nn.Module:
        made = models.get_model(architecture, weights=None, **{**settings, **extra})
        if image_shape[0] != 3:
            _replace_first_convolution(made, image_shape[0], what)
        return made

    _check_size(model, image_shape, other)
    return _wrap(model, linear[-1], state, source, num_classes, image_shape, proj_dim)


def _check_size(
    model: nn.Module, image_shape: tuple[int, int, int], other: Callable[[Mapping[str, Any]], nn.Module]
) -> None:
    """Raise ConfigError if a model does not accept images of a shape, suggesting options that would change that.

    - other: makes the same architecture with further options.
    """
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(2, *image_shape))
    except Exception as error:  # each architecture complains about sizes in its own way
        size = "x".join(map(str, image_shape[1:]))
        reason = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise ConfigError(f"the model cannot take {size} images ({reason}); {_advice(image_shape, other)}") from error
    model.train(training)


def _advice(image_shape: tuple[int, int, int], other: Callable[[Mapping[str, Any]], nn.Module]) -> str:
    side = image_shape[1]
    patches = [{}, *({"patch_size": side // parts} for parts in (4, 8, 2) if side % parts == 0)]
    for options in ({key: side, **patch} for patch in patches for key in ("img_size", "image_size")):
        try:
            with torch.device("meta"), torch.no_grad():
                other(options).eval()(torch.zeros(2, *image_shape))
        except Exception:  # these options do not help
            continue
        return "set " + " ".join(f"+model.options.{key}={value}" for key, value in options.items())
    return "choose another model.architecture, or one for any size, e.g. model=small_cnn"


def _check_weights(pretrained: bool, weights: str | None) -> None:
    if pretrained and weights is not None:
        raise ConfigError("model.pretrained=true and model.weights name two sets of weights; set only one of them")


def _unknown(library: str, architecture: str, known: Iterable[str]) -> ConfigError:
    near = get_close_matches(architecture, list(known), n=5, cutoff=0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    return ConfigError(f"model.architecture: {library} has no image classifier {architecture!r}{hint}")


def _construct(what: str, make: Callable[[], Any], *, pretrained: bool) -> Any:
    """Return the result of `make`, turning any exception of the library into one `ConfigError`."""
    try:
        return make()
    except Exception as error:  # the libraries raise anything from AssertionError to errors of their HTTP client
        reason = f"{type(error).__name__}: {error}"
        if pretrained:
            raise ConfigError(
                f"the pretrained weights of {what} are not available ({reason}); without network access, copy the file "
                f"to this machine and set model.pretrained=false model.weights=<file>"
            ) from error
        raise ConfigError(f"{what} cannot be built ({reason}); see model.options") from error


def _replace_first_convolution(model: nn.Module, channels: int, what: str) -> None:
    name, old = next(((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)), ("", None))
    if old is None or old.in_channels != 3:
        raise ConfigError(f"{what} has no RGB convolution at its input to replace for images of {channels} channels")
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    model.set_submodule(name, new)


def _wrap(
    model: nn.Module,
    classifier: nn.Linear | None,
    state: Mapping[str, Tensor] | None,
    source: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    proj_dim: int | None,
) -> TwoHeads:
    """Load weights, remove the classifier from the model, make its units removable, and add the heads.

    A file from one of our own runs uses the names of `TwoHeads` ("trunk. ..."), any other file the library's names.
    """
    own_file = state is not None and any(name.startswith("trunk.") for name in state)
    name = next((name for name, module in model.named_modules() if module is classifier), "")
    if state is not None and not own_file:
        heads = ([name] if name else []) + [head for head in AUXILIARY_HEADS if head not in model._modules]
        load_weights(model, _adapt_input(model, state), heads=heads, source=source)
    if name:
        model.set_submodule(name, nn.Identity())
    make_prunable(model)
    dim = _feature_dim(model, image_shape)
    network = TwoHeads(model, feature_dim=dim, num_classes=num_classes, proj_dim=proj_dim, classifier=classifier)
    if state is not None and own_file:
        load_weights(network, state, heads=HEADS, source=source)
    return network


def _adapt_input(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adapt an RGB input convolution in `state` to the model's channels: summed for one, else repeated and scaled."""
    adapted = dict(state)
    name, first = next(((f"{n}.weight", m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)), ("", None))
    if first is None or name not in adapted or adapted[name].shape[1:2] != (3,) or first.in_channels == 3:
        return adapted
    channels, weight = first.in_channels, adapted[name]
    repeated = weight.repeat(1, -(-channels // 3), 1, 1)[:, :channels] * (3 / channels)
    adapted[name] = weight.sum(1, keepdim=True) if channels == 1 else repeated
    return adapted


def _feature_dim(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the width of the pooled features, found by passing two black images."""
    training = model.training
    with torch.no_grad():
        features = model.eval()(torch.zeros(2, *image_shape))
    model.train(training)
    if not isinstance(features, Tensor) or features.dim() != 2:
        raise ConfigError("the model does not return one feature vector per image; choose another model.architecture")
    return int(features.shape[1])
