"""Which slot is which word: the cheapest assignment (Kuhn 1955)."""

from collections.abc import Sequence


def match(cost: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """The pairs (row, column) of least total cost, min(rows, columns) of them, rows ascending: the Hungarian method
    with potentials and shortest augmenting paths, O(n^2 m)."""
    if not cost or not cost[0]:
        return []
    if len(cost) > len(cost[0]):
        return sorted((row, column) for column, row in match(list(zip(*cost, strict=True))))
    columns = len(cost[0])
    inf = float("inf")
    price_row, price_column = [0.0] * len(cost), [0.0] * columns
    owner: list[int | None] = [None] * columns
    for new in range(len(cost)):
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
        while here != -1:
            owner[here] = new if before[here] == -1 else owner[before[here]]
            here = before[here]
    return sorted((row, column) for column, row in enumerate(owner) if row is not None)
