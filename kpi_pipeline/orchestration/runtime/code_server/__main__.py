"""`python -m kpi_pipeline.orchestration.runtime.code_server SOCKET`, which `kpi up` runs."""

import sys
from pathlib import Path

from kpi_pipeline.orchestration.runtime.code_server.server import serve

if __name__ == "__main__":
    serve(Path(sys.argv[1]))
