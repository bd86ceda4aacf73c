"""Optimizers of a group: each member's weights are parameters of their own, views of the stack.

So an update is what the member's own would be to the last bit, also by an optimizer that looks at
a whole tensor, or whose kernel rounds the last few values of one in another way.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["divided", "gather_states", "scatter_states"]


def divided(
    stack: Sequence[Tensor], members: int, make: Callable[[Iterable[Tensor]], Optimizer]
) -> Optimizer:
    """An optimizer of what each member has in stacked parameters; all of the first come first.

    A step takes the gradients that are at the stack, and leaves none there.
    """
    own = [[_view(parameter, index) for parameter in stack] for index in range(members)]
    optimizer = make([view for views in own for view in views])

    def take(*called: Any) -> None:
        for index, views in enumerate(own):
            for view, parameter in zip(views, stack, strict=True):
                view.grad = None if parameter.grad is None else parameter.grad[index]

    def clear(*called: Any) -> None:
        for parameter in stack:
            parameter.grad = None

    optimizer.register_step_pre_hook(take)
    optimizer.register_step_post_hook(clear)
    return optimizer


def _view(parameter: Tensor, index: int) -> nn.Parameter:
    return nn.Parameter(parameter.detach()[index], requires_grad=parameter.requires_grad)


def gather_states(group: Optimizer, members: Sequence[Optimizer]) -> None:
    """Take up what each member keeps; what it keeps of all parameters they have in common."""
    _copy_groups(members[0], group)
    group.state.clear()
    theirs = [(member, parameter) for member in members for parameter in _parameters(member)]
    for mine, (member, its) in zip(_parameters(group), theirs, strict=True):
        if its in member.state:
            group.state[mine] = copy.deepcopy(member.state[its])


def scatter_states(group: Optimizer, members: Sequence[Optimizer]) -> None:
    """Give each member what is its own, and what all have in common."""
    for member in members:
        _copy_groups(group, member)
    theirs = [(member, parameter) for member in members for parameter in _parameters(member)]
    for mine, (member, its) in zip(_parameters(group), theirs, strict=True):
        if mine in group.state:
            member.state[its] = copy.deepcopy(group.state[mine])


def _copy_groups(source: Optimizer, target: Optimizer) -> None:
    """What is kept of all parameters at once, the options among it."""
    for given, taken in zip(source.param_groups, target.param_groups, strict=True):
        others = {key: value for key, value in given.items() if key != "params"}
        taken.update(copy.deepcopy(others))


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
