"""Minimum-cost assignment of slots to words: the Hungarian method (Kuhn 1955)."""

from collections.abc import Sequence


def min_cost_assignment(cost: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """The pairs (row, column) with the least total cost, each row and column in one pair at most.

    There are min(rows, columns) pairs, sorted by row.  The method is the Hungarian one with potentials and shortest
    augmenting paths, in O(n^2 m).

    The cheapest entry, 0, is not taken here: with it the other two rows would have to pay 4 + 2 or 3 + 3.

    >>> min_cost_assignment([[4, 1, 3], [2, 0, 5], [3, 2, 2]])
    [(0, 1), (1, 0), (2, 2)]
    """
    if not cost or not cost[0]:
        return []
    if len(cost) > len(cost[0]):
        return sorted((row, column) for column, row in min_cost_assignment(list(zip(*cost, strict=True))))
    columns = len(cost[0])
    inf = float("inf")
    price_row, price_column = [0.0] * len(cost), [0.0] * columns  # potentials: cost - prices >= 0, 0 on chosen pairs
    owner: list[int | None] = [None] * columns  # the row that each column is assigned to
    for new in range(len(cost)):
        # a shortest path from the new row to a free column; `gap` is the distance of each column, `before` its parent
        gap, before, done = [inf] * columns, [-1] * columns, [False] * columns
        row: int | None = new
        here = -1
        while row is not None:
            for column in range(columns):
                if not done[column]:
                    slack = cost[row][column] - price_row[row] - price_column[column]
                    if slack < gap[column]:
                        gap[column], before[column] = slack, here
            nearest = min((c for c in range(columns) if not done[c]), key=gap.__getitem__)
            step = gap[nearest]
            price_row[new] += step
            for column in range(columns):
                if done[column]:
                    holder = owner[column]
                    assert holder is not None
                    price_row[holder] += step
                    price_column[column] -= step
                else:
                    gap[column] -= step
            done[nearest], here, row = True, nearest, owner[nearest]
        while here != -1:  # shift the assignments along the path
            owner[here] = new if before[here] == -1 else owner[before[here]]
            here = before[here]
    return sorted((row, column) for column, row in enumerate(owner) if row is not None)
