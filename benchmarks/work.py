"""What work a piece of code is: operations on numbers, and bytes that operators read and write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

__all__ = ["counted"]


class _Counter(TorchDispatchMode):
    """Adds up operations, and the sizes of what each operator is given and gives.

    Torch's own counter takes composite operators apart on the way, which runs another program than
    the one that is timed, and on tensors of a subclass fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flop = self.bytes = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        out = func(*args, **given)
        if count := flop_registry.get(func._overloadpacket):
            self.flop += int(count(*args, **given, out_val=out))
        if not func.is_view:
            tensors = [each for each in tree_leaves((args, given, out)) if isinstance(each, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out


def counted(run: Callable[[], object]) -> dict[str, int]:
    """`flop` and `traffic_bytes` of a run.

    A multiplication and an addition are two operations, and those of products and convolutions
    count. Bytes count once per operator, whether or not a cache has them. Inside a compiled
    function, or a graph that is replayed, nothing is seen.
    """
    counter = _Counter()
    with counter:
        run()
    return {"flop": counter.flop, "traffic_bytes": counter.bytes}
