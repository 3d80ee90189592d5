"""Put the tables that the pipeline wrote into README.md, between its markers, and run its example."""

import re
import sys
import tempfile
from pathlib import Path

import pandas as pd
from click.testing import CliRunner

from ipbasis.cli import main as command_line
from ipbasis.evaluation.tables import SOURCES
from ipbasis.files import replacing_file
from pipelines.common import REPORTS, ROOT
from pipelines.compare import markdown


def main_table() -> str:
    """Errors and seconds per query of every source on the damped oscillator, in range."""
    online = pd.read_csv(REPORTS / "tables" / "damped_oscillator_online.csv")
    online["seconds_per_query"] = online["seconds"] / online["queries"]
    lines = []
    for (source, readouts), rows in online.groupby(["source", "readouts"], dropna=False, sort=False):
        by_range = rows.set_index("ic_half_range").reindex([5, 40])
        errors = {
            f"{parameter}, {where}": by_range[f"{parameter}_mae"].loc[half_range]
            for half_range, where in ((5, "in range"), (40, "8 x out"))
            for parameter in ("a1", "a2")
        }
        seconds = rows["seconds_per_query"].mean()
        name = f"**{SOURCES[source]}**" if source == "ipbasis" else SOURCES[source]
        queries = int(rows["queries"].iloc[0])
        line = {"method": name, "readouts": readouts, "queries": queries, **errors, "seconds per query": seconds}
        lines.append(line)
    return markdown(pd.DataFrame(lines))


def example(picture: Path | None = None) -> str:
    """What the README's example prints; its first picture is copied to `picture`."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        basis, observations = ROOT / "models/damped_oscillator/best", ROOT / "data/examples/damped_oscillator.csv"
        arguments = ["--output", place / "estimates.csv", "--figures", place / "figures"]
        done = CliRunner().invoke(command_line, ["fit", *map(str, [basis, observations, *arguments])])
        if done.exit_code:
            raise RuntimeError(done.output)
        if picture is not None:
            first = sorted((place / "figures").iterdir())[0]
            with replacing_file(picture) as temporary:
                temporary.write_bytes(first.read_bytes())
    lines = done.output.splitlines()
    return "\n".join(f"    {line}".rstrip() for line in lines if not line.startswith("written to"))


def replaced(text: str, name: str, content: str) -> str:
    """Text with the block between the markers of this name replaced."""
    begin, end = f"<!-- {name}: written by pipelines/readme.py -->", f"<!-- end of {name} -->"
    pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
    if not re.search(pattern, text, re.DOTALL):
        raise ValueError(f"README.md has no markers for {name}")
    return re.sub(pattern, lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)


def main() -> int:
    readme = ROOT / "README.md"
    text = replaced(readme.read_text(), "main table", main_table())
    text = replaced(text, "example", f"\n{example(REPORTS / 'figures' / 'example_query.png')}\n")
    with replacing_file(readme) as temporary:
        temporary.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
