"""Stage compare: all sources in the tables of the paper, figures, report, and the basis for real queries."""

import shutil

import hydra
from omegaconf import DictConfig

from ipbasis.tracking import Tracker
from pipelines.benchmark import Benchmark
from pipelines.common import run_stage
from pipelines.paths import REPORTS, best_directory
from pipelines.report.best import choose_best
from pipelines.report.comparison import comparison
from pipelines.report.outputs import write_figure, write_table, write_text
from pipelines.report.pictures import pictures
from pipelines.report.text import report


def work(benchmark: Benchmark, tracker: Tracker) -> None:
    name, best = benchmark.name, choose_best(benchmark)
    tables = comparison(benchmark, best)
    for kind, content in tables.items():
        write_table(content, f"{benchmark.report.table}_{kind}", tracker)
    drawn = pictures(benchmark, tables, best)
    shutil.rmtree(REPORTS / "figures" / name, ignore_errors=True)
    for kind, figure in drawn.items():
        write_figure(figure, f"{name}/{kind}", tracker)
    write_text(report(benchmark, tables, list(drawn), best), name, tracker)
    tracker.artefact(best_directory(name), "basis/best")
    online = tables["online"]
    own = online[online["source"] == "ipbasis"].select_dtypes("number").mean().dropna()
    tracker.metrics({f"mean_{key}": value for key, value in own.items()})
    print(tables["times"].to_string(index=False, float_format=lambda v: f"{v:.3g}"))


@hydra.main(version_base=None, config_path="../../conf", config_name="config")
def main(config: DictConfig) -> None:
    run_stage("compare", config, work)


if __name__ == "__main__":
    main()
