"""The MLflow UI on 127.0.0.1, on the same database as the stages."""

import os
import sys

from ipbasis.tracking import tracking_uri
from pipelines.paths import ROOT


def main() -> None:
    uri = tracking_uri(ROOT)
    if uri.startswith(("http:", "https:")):
        print(f"MLFLOW_TRACKING_URI names a server, which has a UI of its own: {uri}")
        return
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    port = os.environ.get("PORT", "5000")
    print(f"MLflow UI: http://127.0.0.1:{port}  (stop with Ctrl-C)", flush=True)
    command = ["mlflow", "server", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", port, "--workers", "1"]
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main())
