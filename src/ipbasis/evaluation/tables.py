"""Tables in the layout of the published ones."""

import pandas as pd

# the sources in the order of the tables, and what they are called where a person reads them
SOURCES = {
    "published": "published",
    "paper_recipe": "published recipe, run here",
    "ipbasis": "ipbasis",
    "pinn": "plain PINN",
    "least_squares": "least squares around a solver",
}
# bases that are compared with each other, and what they are called
BASES = {
    "ipbasis": "ipbasis: trained",
    "paper_recipe": "trained by the published recipe",
    "pod": "POD of exact solutions",
    "chebyshev": "Chebyshev polynomials",
    "random_features": "untrained network",
}
# one colour per source in every figure; distinguishable without colour vision (Okabe & Ito)
COLOURS = {
    "published": "#999999",
    "paper_recipe": "#E69F00",
    "ipbasis": "#0072B2",
    "pinn": "#CC79A7",
    "least_squares": "#009E73",
}


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
