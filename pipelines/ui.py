"""The MLflow UI on 127.0.0.1, on the same database as the stages."""

import os
import sys

from pipelines.common import ROOT


def main() -> None:
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{ROOT / 'mlflow.db'}"
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    artefacts = (ROOT / "mlartifacts").as_uri()
    port = os.environ.get("PORT", "5000")
    print(f"MLflow UI: http://127.0.0.1:{port}  (stop with Ctrl-C)", flush=True)
    command = ["mlflow", "server", "--backend-store-uri", uri, "--default-artifact-root", artefacts]
    command += ["--host", "127.0.0.1", "--port", port, "--workers", "1"]
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main())
