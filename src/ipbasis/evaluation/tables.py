"""Tables in the layout of the published ones."""

import pandas as pd

from ipbasis.evaluation.names import SOURCES


def combine(published: pd.DataFrame, parts: list[pd.DataFrame], keys: list[str]) -> pd.DataFrame:
    """Published and own rows in one table.

    Args:
        published: the paper's table; its columns come first, after ``source``.
        parts: tables with a column ``source`` and any of the published columns; others come behind.
        keys: columns to sort by, after the source, where the table has them.
    """
    rows = [published.assign(source="published"), *parts]
    columns = ["source", *published.columns]
    further = [c for part in parts for c in part.columns if c not in columns]
    table = pd.concat([r for r in rows if not r.empty], ignore_index=True)[[*columns, *dict.fromkeys(further)]]
    table["source"] = pd.Categorical(table["source"], list(SOURCES), ordered=True)
    table = table.sort_values(["source", *(key for key in keys if key in table)], ignore_index=True, kind="stable")
    return table.astype({"source": str})
