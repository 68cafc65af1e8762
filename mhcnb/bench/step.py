"""What a connection costs in a whole training step: forward and backward of a GPT."""

from collections.abc import Callable, Iterator

from torch import nn

from mhcnb import registry
from mhcnb.bench import floor
from mhcnb.bench.gpt import Size, compiled, gpt
from mhcnb.bench.measure import FLOOR, Timing, side_by_side
from mhcnb.bench.place import Place, one_thread, there_and_back

# by whether there is an accelerator; where there is one, the widths of the targets, the first two as the presets
SIZES = {
    False: [Size()],
    True: [
        Size(768, 12, 12, 16, 1024, 50304),
        Size(1024, 24, 16, 16, 1024, 50304),
        Size(2048, 12, 16, 8, 1024, 50304),
        Size(4096, 4, 32, 4, 1024, 8192),  # so that all contenders fit, and the head's share stays small
    ],
}
COMPILED = "mhc"  # of theirs: each takes minutes


def step(where: Place, rounds: int = 9) -> list[Timing]:
    """Every connection and every peer's model against residual: float32, one CPU thread, the small preset on 4 x 256
    tokens with vocabulary 8192. On an accelerator bfloat16 and compiled, widths 768 to 4096. The rate: the FLOPs of the
    model's matrix products over the time."""
    sizes = SIZES[where.accelerated]
    with one_thread():
        return [t for size in sizes for t in at(size, where, rounds, len(sizes) > 1)]


def at(size: Size, where: Place, rounds: int, several: bool = False) -> list[Timing]:
    """The case at one size; of several, each has its width in its name."""
    tokens = size.batch * size.tokens
    flops = gpt("residual", size).model.flops_per_token() * tokens
    contenders = dict(_contenders(size, where)) | {f"{FLOOR}multiplying as much": floor.matmuls(flops, where)}
    timings = side_by_side(f"step {size.width}" if several else "step", contenders, rounds)
    return floor.counted(timings, lambda name: flops, "FLOP")


def _contenders(size: Size, where: Place) -> Iterator[tuple[str, Callable[[], None]]]:
    """Ours, compiled where training would be; theirs as they are and, there, one as their own training compiles it."""
    batch = size.batch_of(where.device)

    def contender(loss: nn.Module) -> Callable[[], None]:
        return there_and_back(loss, batch, where)

    for name in sorted(registry.entries("connections"), key=lambda name: name != "residual"):
        loss = gpt(name, size)
        yield name, contender(compiled(loss) if where.accelerated else loss)
    for peer in where.peers:
        for name, make in peer.gpts.items():
            loss = make(size)
            yield f"{peer.name}: {name}", contender(loss)
            if where.accelerated and name == COMPILED:
                yield f"{peer.name}, compiled: {name}", contender(compiled(loss))
