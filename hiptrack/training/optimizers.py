"""Optimisers, the parameter groups they are given, and what one hands on to the next."""

import gin
import torch

from hiptrack.errors import ConfigError, did_you_mean
from hiptrack.ranges import NonNegative, ShareBelowOne

EMBEDDINGS = "backbone.embeddings"  # stands for patch embedding, positions and tokens of the backbone


@gin.register(denylist=["parameters"])
def AdamW(parameters, weight_decay: NonNegative = 1e-4, betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)):
    """AdamW (Loshchilov and Hutter, ICLR 2019), fused; the learning rates come from the stage."""
    betas = tuple(map(float, betas))  # PyTorch refuses 0 beside 0.9
    return torch.optim.AdamW(parameters, weight_decay=weight_decay, betas=betas, fused=True)


@gin.register(denylist=["parameters"])
def SGD(parameters, momentum: ShareBelowOne = 0.9, weight_decay: NonNegative = 1e-4):
    """Stochastic gradient descent with momentum; the learning rates come from the stage."""
    return torch.optim.SGD(parameters, lr=1.0, momentum=momentum, weight_decay=weight_decay, fused=True)


@gin.register(denylist=["parameters"])
def TimmOptimizer(
    parameters, name: str = "lamb", weight_decay: NonNegative = 1e-4, betas: tuple[ShareBelowOne, ...] | None = None
):
    """Any optimiser of timm (`timm.optim.list_optimizers`); the learning rates come from the stage.

    Args:
        parameters: groups with an `lr` each, as `parameter_groups` gives them.
        name: such as "lamb" (You et al., ICLR 2020), "lion" (Chen et al., NeurIPS 2023), "adafactor" (Shazeer and
            Stern, ICML 2018), "adan" (Xie et al., TPAMI 2024) or "nadamw".
        weight_decay: as the optimiser defines it, for all parameters alike.
        betas: None keeps the optimiser's own; those without betas pass over it.

    Raises ConfigError for a name timm does not know, one that this machine cannot run, and one whose training could not
    be resumed exactly.
    """
    from timm.optim import (
        create_optimizer_v2,
        get_optimizer_info,
        list_optimizers,
    )  # here: see create_vit in models/backbone.py

    known = list_optimizers()
    if name not in known:
        raise ConfigError(f"timm has no optimiser '{name}'.{did_you_mean(name, known)}")
    if get_optimizer_info(name).second_order:
        raise ConfigError(
            f"TimmOptimizer.name = '{name}' needs second derivatives, which the training step does not make."
        )
    if name.startswith("kron"):
        raise ConfigError(
            f"TimmOptimizer.name = '{name}' draws random numbers of its own, which no checkpoint keeps: its training "
            "could not be resumed exactly."
        )
    number = get_optimizer_info(name).num_betas
    if betas is not None and number and len(betas) != number:
        raise ConfigError(f"TimmOptimizer.betas = {tuple(betas)}: '{name}' has {number}.")
    own = {} if betas is None else {"betas": betas}
    highest = max(group["lr"] for group in parameters)  # without a rate, some would choose one by themselves
    try:
        return create_optimizer_v2(parameters, opt=name, lr=highest, weight_decay=weight_decay, **own)
    except (AssertionError, ImportError, ValueError, TypeError) as error:
        raise ConfigError(f"TimmOptimizer.name = '{name}' cannot be built: {error}") from error


def parameter_groups(model, lr, multipliers, layer_decay=None):
    """Optimiser groups of all trainable parameters, one for each factor of the learning rate.

    The longest name in `multipliers` ({module: factor}) that fits a parameter decides. With `layer_decay` d, the factor
    of the backbone's block b of n (from 0) is d^(n - b) times that, and its embeddings' d^(n + 1) times; the final norm
    and all outside the backbone have none (Clark et al., ELECTRA, ICLR 2020; in this form Bao et al., BEiT, ICLR 2022).

    Each group has `name` (the module that has this factor, or "rest"), `lr` and `base_lr`.
    """
    groups = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        fits = [module for module in multipliers if name.startswith(module + ".")]
        group = max(fits, key=len, default="rest")
        rate = lr * multipliers.get(group, 1.0)
        layer, distance = backbone_layer(name, len(model.backbone.blocks)) if layer_decay else (None, 0)
        if layer is not None:
            rate *= layer_decay**distance
            if group in ("rest", "backbone", "backbone.blocks"):  # any other lies within one layer
                group = layer
        new = {"params": [], "name": group, "lr": rate, "base_lr": rate}
        groups.setdefault(group, new)["params"].append(parameter)
    return list(groups.values())


def backbone_layer(parameter, depth):
    """(layer, its distance from the backbone's end) of a parameter's name; (None, 0) for what belongs to none."""
    part, child, *rest = parameter.split(".")
    if part != "backbone" or child == "norm":
        return None, 0
    if child == "blocks":
        return f"backbone.blocks.{rest[0]}", depth - int(rest[0])
    return EMBEDDINGS, depth + 1


def carry_over(old, new):
    """Give a new optimiser what an old one knows of the parameters both train."""
    for group in new.param_groups:
        for parameter in group["params"]:
            if parameter in old.state:
                new.state[parameter] = old.state[parameter]
    restore_group_steps(new, group_steps(old))


def group_steps(optimizer):
    """{name of a parameter group: steps done}, for optimisers that count them for a whole group (LAMB, Adan)."""
    return {group["name"]: group["step"] for group in optimizer.param_groups if "step" in group}


def restore_group_steps(optimizer, steps):
    for group in optimizer.param_groups:
        if group["name"] in steps:
            group["step"] = steps[group["name"]]


def trainable_parameters(model, modules):
    """Names of the parameters of some modules (dotted names; "all" is the model).

    Raises ConfigError naming the nearest module, or where the modules hold no parameter.
    """
    names = set()
    for module in modules:
        if module != "all":
            require_module(model, module, "Stage.trainable")
        prefix = "" if module == "all" else module
        own = model.get_submodule(prefix).named_parameters()
        names.update(f"{prefix}.{name}" if prefix else name for name, _ in own)
    if not names:
        raise ConfigError(f"Stage.trainable = {list(modules)} holds no parameter: there is nothing to train.")
    return names


def require_module(model, module, parameter):
    """Raise ConfigError, with the nearest name, where a module (dotted name) does not exist."""
    known = [name for name, _ in model.named_modules() if name]
    if module not in known:
        raise ConfigError(
            f"{parameter} names '{module}', which is no module of the model.{did_you_mean(module, known)}"
        )


def freeze_all_but(model, modules):
    trainable = trainable_parameters(model, modules)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)
