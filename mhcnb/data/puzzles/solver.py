"""All solutions of one puzzle, or the first few: depth-first over bit sets, with naked and hidden singles."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from mhcnb.data.puzzles.rules import Rules, rules

MOST_NODES = 100_000  # branches after which a search gives up: no published puzzle needs a hundredth of them

Grid = list[int]


class Solved(NamedTuple):
    """solutions: at most as many as asked for, as digits. backtracks: second and later digits tried at a branch, with a
    fixed order of cells and digits. complete: False where the search gave up, so that there may be more."""

    solutions: list[Grid]
    backtracks: int
    complete: bool


def solve(
    puzzle: Sequence[int], limit: int = 2, most_nodes: int = MOST_NODES, draw: random.Random | None = None
) -> Solved:
    """The first `limit` solutions of a puzzle of 81 or 16 digits, 0 for a blank. `draw` shuffles the digits at a
    branch: then a blank grid gives a random one."""
    search = _Search(rules(9 if len(puzzle) == 81 else 4), limit, most_nodes, draw)
    free, missing = search.start(puzzle)
    if missing is not None:
        search.descend([1 << d >> 1 for d in puzzle], free, missing)
    return Solved(search.found, search.backtracks, search.nodes <= most_nodes)


class _Search:
    """`grid` holds a bit a cell, 0 where it is free; `missing` the digits that each unit still lacks, as bits."""

    def __init__(self, ruled: Rules, limit: int, most_nodes: int, draw: random.Random | None) -> None:
        self.of: list[list[int]] = ruled.of.tolist()
        self.units, self.full = 3 * ruled.size, ruled.full
        self.limit, self.most_nodes, self.draw = limit, most_nodes, draw
        self.found: list[Grid] = []
        self.backtracks = self.nodes = 0

    def start(self, puzzle: Sequence[int]) -> tuple[list[int], list[int] | None]:
        """The free cells and what the units lack; None for that where the givens break a rule."""
        missing = [self.full] * self.units
        for cell, digit in enumerate(puzzle):
            for unit in self.of[cell] if digit else ():
                if not missing[unit] & 1 << digit >> 1:
                    return [], None
                missing[unit] ^= 1 << digit >> 1
        return [cell for cell, digit in enumerate(puzzle) if not digit], missing

    def descend(self, grid: Grid, free: list[int], missing: list[int]) -> None:
        """Adds the solutions below a state, which it uses up."""
        rest = self._singles(grid, free, missing)
        if rest is None:
            return
        if not rest:
            self.found.append([bit.bit_length() for bit in grid])
            return
        self.nodes += 1
        cell, options = self._fewest(rest, missing)
        for i, bit in enumerate(options):
            if len(self.found) >= self.limit or self.nodes > self.most_nodes:
                return
            self.backtracks += i > 0
            below, lacks = grid.copy(), missing.copy()
            self._place(cell, bit, below, lacks)
            self.descend(below, [other for other in rest if other != cell], lacks)

    def _place(self, cell: int, bit: int, grid: Grid, missing: list[int]) -> None:
        grid[cell] = bit
        for unit in self.of[cell]:
            missing[unit] ^= bit

    def _fewest(self, free: list[int], missing: list[int]) -> tuple[int, list[int]]:
        """The first cell with the fewest digits left, and their bits in the order to try."""
        left = {cell: missing[r] & missing[c] & missing[b] for cell in free for r, c, b in [self.of[cell]]}
        cell = min(free, key=lambda other: left[other].bit_count())
        options = [1 << d for d in range(self.full.bit_length()) if left[cell] >> d & 1]
        if self.draw is not None:
            self.draw.shuffle(options)
        return cell, options

    def _singles(self, grid: Grid, free: list[int], missing: list[int]) -> list[int] | None:
        """Places what is forced until nothing is; the cells still free, or None at a contradiction."""
        of, before = self.of, -1
        while free and len(free) != before:
            before, rest, options = len(free), [], []
            for cell in free:
                r, c, b = of[cell]
                left = missing[r] & missing[c] & missing[b]
                if left & left - 1:
                    rest.append(cell)
                    options.append(left)
                elif left:
                    self._place(cell, left, grid, missing)
                else:
                    return None
            if len(rest) == before:
                hidden = self._hidden(rest, options, missing)
                if hidden is None:
                    return None
                for cell, bit in hidden.items():
                    r, c, b = of[cell]
                    if not bit & missing[r] & missing[c] & missing[b]:
                        return None
                    self._place(cell, bit, grid, missing)
                rest = [cell for cell in rest if cell not in hidden]
            free = rest
        return free

    def _hidden(self, free: list[int], options: list[int], missing: list[int]) -> dict[int, int] | None:
        """{cell: bit} of digits that have one cell left in a unit; None where one has no cell at all."""
        once, twice = [0] * self.units, [0] * self.units
        for cell, left in zip(free, options, strict=True):
            for unit in self.of[cell]:
                twice[unit] |= once[unit] & left
                once[unit] |= left
        if once != missing:
            return None
        found = {}
        for cell, left in zip(free, options, strict=True):
            r, c, b = self.of[cell]
            bit = left & ~(twice[r] & twice[c] & twice[b])
            if bit & bit - 1:
                return None
            if bit:
                found[cell] = bit
        return found
