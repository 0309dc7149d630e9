"""A CUDA device for machines that have none: tensors which say cuda:0 and hold their numbers in CPU memory.

What it finds: an operation on tensors of two devices, a host read or an upload while a graph is being
captured, a replayed graph that reads memory which was replaced, and how many launches and host reads a piece
of work takes. What it cannot find: other bits than a CPU's, and time. `FakeCuda.calls` has every operation
with the shapes of its tensors, so that a test can refuse those whose order of sums on a real device depends
on the number of rows.
"""

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda", 0)
MEMORY_BYTES = 10_000_000_000

# They launch no kernel: a view, or memory that nobody has written yet.
_FREE = {"detach", "alias", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided",
         "_unsafe_view", "_local_scalar_dense", "lift_fresh"}  # fmt: skip
_TAKE_HOST_INDICES = {"index", "index_put_", "_index_put_impl_"}  # torch uploads what lies on the host
_WAIT_FOR_A_SIZE = {"nonzero", "masked_select", "_unique2", "unique_consecutive", "bincount"}


class Call(NamedTuple):
    """One operation that ran on the device."""

    name: str
    shapes: tuple[tuple[int, ...], ...]  # of its tensors, in order
    dtypes: tuple[torch.dtype, ...]
    arguments: tuple[Any, ...]  # what was given besides tensors
    where: str  # the line of groschen that asked for it


@dataclass
class FakeCuda:
    """What happened on the device since `forget`."""

    launches: Counter[str] = field(default_factory=Counter)
    reads: Counter[str] = field(default_factory=Counter)  # the host waited: by line of groschen
    uploads: int = 0
    calls: list[Call] = field(default_factory=list)
    graphs: list["Graph"] = field(default_factory=list)
    captured: "Graph | None" = None

    def forget(self) -> None:
        """Count from here."""
        self.launches, self.reads, self.uploads, self.calls = Counter(), Counter(), 0, []

    def read(self, what: str) -> None:
        """Note that the host waits for the device."""
        self.reads[f"{what} at {_where()}"] += 1
        if self.captured is not None:
            raise RuntimeError(
                f"CUDA error: operation not permitted when stream is capturing: {what} at {_where()}"
            )

    def upload(self) -> None:
        """Note that the device is given numbers of the host."""
        self.uploads += 1
        if self.captured is not None:
            raise RuntimeError(
                f"CUDA error: pageable memory copied while a stream is capturing, at {_where()}"
            )

    def dispatch(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run one operation of ATen on the memory behind the tensors."""
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        ours = [x for x in tensors if isinstance(x, DeviceTensor)]
        asked = kwargs.get("device")
        target = None if asked is None else torch.device(asked).type
        if not ours and target != "cuda":
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name == "device":
            return torch.device("cpu")  # to torch itself, which has no guard for a device of CUDA here
        self._check(func, name, args, tensors, ours, target)
        inner = {**kwargs, "device": torch.device("cpu")} if target == "cuda" else kwargs
        given, named = tree_map(_host, args), tree_map(_host, inner)
        with torch.no_grad():
            out = _mm_wide(*given) if func is torch.ops.aten.mm.dtype else func(*given, **named)
        self._count(func, name, (args, kwargs), tensors)
        if self.captured is not None:
            self.captured.record(func, given, named, out)
        known = {id(x.host): x for x in ours}
        if target == "cpu" or (name == "copy_" and not isinstance(args[0], DeviceTensor)):
            return args[0] if name == "copy_" else out

        def on_device(x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                return x
            return known[id(x)] if id(x) in known else DeviceTensor(x, self)

        return tree_map(on_device, out)

    def _check(self, func: Any, name: str, args: Any, tensors: Any, ours: Any, target: str | None) -> None:
        strangers = [x for x in tensors if not isinstance(x, DeviceTensor)]
        if name == "copy_":
            if strangers:
                self.upload() if strangers[0] is args[1] else self.read("copy to the host")
        elif name == "_to_copy":
            if strangers and target == "cuda":
                self.upload()
            elif ours and target == "cpu":
                self.read("copy to the host")
        elif name in _TAKE_HOST_INDICES and isinstance(args[0], DeviceTensor):
            if strangers:
                self.upload()
        elif ours and any(x.dim() for x in strangers):
            shapes = [tuple(x.shape) for x in tensors]
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
                f"cpu! {func} of {shapes} at {_where()}"
            )
        if name == "_local_scalar_dense" and ours:
            self.read("item")
        elif name in _WAIT_FOR_A_SIZE and ours:
            self.read(name)
        elif name in _TAKE_HOST_INDICES and any(x is not None and x.dtype == torch.bool for x in args[1]):
            self.read("index by a mask")

    def _count(self, func: Any, name: str, given: Any, tensors: list[torch.Tensor]) -> None:
        if func.is_view or name in _FREE:
            return
        self.launches[name] += 1
        others = tuple(x for x in tree_leaves(given) if not isinstance(x, torch.Tensor))
        shapes, dtypes = tuple(tuple(x.shape) for x in tensors), tuple(x.dtype for x in tensors)
        self.calls.append(Call(name, shapes, dtypes, others, _where()))


class DeviceTensor(torch.Tensor):
    """Says that it lies on cuda:0; `host` has the numbers."""

    host: torch.Tensor
    fake: FakeCuda

    @staticmethod
    def __new__(cls, host: torch.Tensor, fake: FakeCuda) -> "DeviceTensor":
        shell = torch.empty_strided(host.shape, host.stride(), dtype=host.dtype, device="meta")
        made = torch.Tensor._make_subclass(
            cls, shell, host.requires_grad, dispatch_device=True, device_for_backend_keys=DEVICE
        )
        made.host, made.fake = host, fake
        return made

    def __init__(self, host: torch.Tensor, fake: FakeCuda) -> None:
        """Everything is done in __new__."""

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    def __repr__(self) -> str:
        return f"DeviceTensor({tuple(self.host.shape)}, {self.host.dtype})"

    def cpu(self, memory_format: Any = None) -> torch.Tensor:
        return self.to("cpu")

    def to(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if device is None or device.type == "cuda":
            return super().to(*args, **kwargs)
        self.fake.read("copy to the host")
        return self.host.detach().to(dtype or self.dtype, copy=True)

    def tolist(self) -> Any:
        self.fake.read("tolist")
        return self.host.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        (fake, *_) = (x.fake for x in tree_leaves((args, kwargs)) if isinstance(x, DeviceTensor))
        return fake.dispatch(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Catches what makes a tensor on the device out of nothing."""

    def __init__(self, fake: FakeCuda) -> None:
        super().__init__()
        self.fake = fake

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.fake.dispatch(func, args, kwargs or {})


class Graph:
    """A captured graph: a replay runs its operations again on the very memory of the capture."""

    def __init__(self, fake: FakeCuda) -> None:
        self.fake, self.num_replays = fake, 0
        self.pool: object = None
        self._tape: list[tuple[Any, Any, Any, Any]] = []
        fake.graphs.append(self)

    def record(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Keep an operation and where it wrote."""
        self._tape.append((func, args, kwargs, out))

    def replay(self) -> None:
        """As torch.cuda.CUDAGraph.replay: no launch but its own."""
        self.num_replays += 1
        self.fake.launches["graph"] += 1
        with torch.no_grad():
            for func, args, kwargs, out in self._tape:
                if func.is_view:
                    continue
                again = _mm_wide(*args) if func is torch.ops.aten.mm.dtype else func(*args, **kwargs)
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


@contextlib.contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """torch with one CUDA device until the end of the block, in every thread that is started in it."""
    fake = FakeCuda()
    _patch_torch(monkeypatch, fake)
    run = threading.Thread.run

    def run_on_device(self: threading.Thread) -> None:
        with _Mode(fake):
            run(self)

    monkeypatch.setattr(threading.Thread, "run", run_on_device)
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory
    try:
        with _Mode(fake):
            yield fake
    finally:
        torch.use_deterministic_algorithms(is_deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fills


def _patch_torch(monkeypatch: pytest.MonkeyPatch, fake: FakeCuda) -> None:
    tensor = torch.tensor

    def on_device(data: Any, *args: Any, device: Any = None, **options: Any) -> torch.Tensor:
        if device is None or torch.device(device).type != "cuda":
            return tensor(data, *args, device=device, **options)
        fake.upload()
        return DeviceTensor(tensor(data, *args, **options), fake)

    @contextlib.contextmanager
    def capture(graph: Graph, pool: object = None) -> Iterator[None]:
        graph.pool, fake.captured = pool, graph
        try:
            yield
        finally:
            fake.captured = None

    stream = SimpleNamespace(wait_stream=lambda other: None, synchronize=lambda: None)
    facts = SimpleNamespace(
        name="stand-in", total_memory=MEMORY_BYTES, major=9, minor=0, L2_cache_size=50 << 20, uuid="none",
        multi_processor_count=1,
    )  # fmt: skip
    replaced: dict[str, Callable[..., Any]] = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_properties": lambda device=None: facts,
        "get_device_capability": lambda device=None: (9, 0),
        "mem_get_info": lambda device=None: (MEMORY_BYTES, MEMORY_BYTES),
        "synchronize": lambda device=None: None,
        "get_rng_state": lambda device=None: torch.empty(0),
        "set_rng_state": lambda state, device=None: None,
        "manual_seed_all": lambda seed: None,
        "Stream": lambda *a: stream,
        "current_stream": lambda *a: stream,
        "stream": lambda s: contextlib.nullcontext(),
        "CUDAGraph": lambda: Graph(fake),
        "graph": capture,
        "graph_pool_handle": object,
    }
    for name, function in replaced.items():
        monkeypatch.setattr(torch.cuda, name, function)
    # Inference mode takes no subclass of Tensor; without a gradient is what it means to this code.
    monkeypatch.setattr(torch.inference_mode, "__enter__", _enter_without_gradient)
    monkeypatch.setattr(torch.inference_mode, "__exit__", _leave_without_gradient)
    monkeypatch.setattr(torch.backends.cuda, "preferred_blas_library", lambda name=None: name)
    monkeypatch.setattr(torch, "tensor", on_device)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    for name in ("CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def _enter_without_gradient(self: torch.inference_mode) -> None:
    self._inference_mode_context = torch.set_grad_enabled(torch.is_grad_enabled() and not self.mode)


def _leave_without_gradient(self: torch.inference_mode, *error: object) -> None:
    torch.set_grad_enabled(self._inference_mode_context.prev)


def _where() -> str:
    """The innermost line of groschen that is running."""
    frame = sys._getframe(1)
    while frame is not None and "/src/groschen/" not in frame.f_code.co_filename:
        frame = frame.f_back  # type: ignore[assignment]
    return "?" if frame is None else f"{frame.f_code.co_filename.split('/src/groschen/')[1]}:{frame.f_lineno}"


def _host(x: Any) -> Any:
    return x.host if isinstance(x, DeviceTensor) else x


def _mm_wide(a: torch.Tensor, b: torch.Tensor, _dtype: torch.dtype) -> torch.Tensor:
    return a.float() @ b.float()
