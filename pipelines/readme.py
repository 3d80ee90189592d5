"""Put the tables that the pipeline wrote into README.md, between its markers."""

import re
import sys

import pandas as pd

from ipbasis.files import replacing_file
from pipelines.common import REPORTS, ROOT
from pipelines.compare import markdown

_NAMES = {
    "published": "published",
    "paper_recipe": "published recipe, run here",
    "ipbasis": "**ipbasis**",
    "pinn": "plain PINN",
    "least_squares": "least squares around an ODE solver",
}


def main_table() -> str:
    """Errors and seconds per query of every source on the damped oscillator, in range."""
    online = pd.read_csv(REPORTS / "tables" / "damped_oscillator_online.csv")
    online["seconds_per_query"] = online["seconds"] / online["queries"]
    rows = online[online["ic_half_range"].isin([5, 40])]
    wide = rows.pivot_table(
        index=["source", "readouts"], columns="ic_half_range", values=["a1_mae", "a2_mae"], dropna=False
    ).dropna(how="all")
    seconds = rows.groupby(["source", "readouts"], dropna=False)["seconds_per_query"].mean()
    lines = []
    for source in _NAMES:
        for (name, readouts), values in wide.iterrows():
            if name == source:
                lines.append(
                    {
                        "method": _NAMES[source],
                        "readouts": readouts,
                        "a1, in range": values["a1_mae", 5],
                        "a2, in range": values["a2_mae", 5],
                        "a1, 8 x out": values["a1_mae", 40],
                        "a2, 8 x out": values["a2_mae", 40],
                        "seconds per query": seconds.loc[(name, readouts)],
                    }
                )
    return markdown(pd.DataFrame(lines))


def filled(text: str) -> str:
    """README text with the block between the markers replaced by the current table."""
    block = f"<!-- main table: written by pipelines/readme.py -->\n{main_table()}\n<!-- end of main table -->"
    pattern = r"<!-- main table:.*?<!-- end of main table -->"
    if not re.search(pattern, text, re.DOTALL):
        raise ValueError("README.md has no markers for the main table")
    return re.sub(pattern, lambda _: block, text, flags=re.DOTALL)


def main() -> int:
    readme = ROOT / "README.md"
    text = filled(readme.read_text())
    with replacing_file(readme) as temporary:
        temporary.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
