"""Hydra callback that collects the rows of all jobs of a multirun study in one table."""

from pathlib import Path

import pandas as pd
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from ipbasis.files import replacing_file
from ipbasis.tracking import Tracker
from pipelines.benchmark import Benchmark
from pipelines.common import run_stage


def _report(name: str, table: pd.DataFrame, tracker: Tracker) -> None:
    """Table and figure of one of the studies in conf/study among the reports."""
    # Hydra makes the callback at every start of a stage, and importing Matplotlib takes long
    from ipbasis.evaluation.study_figures import plot_readouts, plot_variants
    from pipelines.report.outputs import write_figure, write_table

    plots = {"readouts": plot_readouts, "training": plot_variants, "training_full": plot_variants}
    write_table(table, f"study_{name}", tracker)
    write_figure(plots[name](table), f"study_{name}", tracker)


class CollectTable(Callback):
    """Hydra callback: collects the rows of all jobs when the multirun ends."""

    def on_multirun_end(self, config: DictConfig, **kwargs) -> None:
        sweep = Path(config.hydra.sweep.dir)
        rows = [pd.read_csv(path) for path in sorted(sweep.glob("*/row.csv"), key=lambda p: int(p.parent.name))]
        if not rows:
            return
        table = pd.concat(rows, ignore_index=True)
        with replacing_file(sweep / "table.csv") as temporary:
            table.to_csv(temporary, index=False)

        def log(benchmark: Benchmark, tracker: Tracker) -> None:
            tracker.artefact(sweep / "table.csv")
            if name := config.study.get("report"):
                _report(name, table, tracker)

        run_stage("collect", config, log, group=str(sweep), group_name=f"study {sweep.name}")
        print(table.to_string(index=False, float_format=lambda v: f"{v:.3g}"))
        print(f"written to {sweep / 'table.csv'}")
