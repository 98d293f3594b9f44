"""A search on workers that are Slurm jobs of their own, submitted while there is work for them; the driver is here.

    python docs/slurm/elastic.py first_rule outer.generations=100

Needs `pip install 'metarule[cluster]'`, and a folder that every node sees. Fill in your queue; worker jobs leave before
their wall time, and others follow.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dask_jobqueue import SLURMCluster
from distributed import Security

QUEUE = os.environ.get("QUEUE", "cpu")
JOBS = int(os.environ.get("JOBS", "16"))

if __name__ == "__main__":
    # other users share the network: a certificate of this session, which its owner alone can read
    security = Security.temporary()
    with tempfile.TemporaryDirectory(prefix=".metarule-", dir=Path.cwd()) as shared:
        tls = []
        for option, content in (("ca", "tls_ca_file"), ("cert", "tls_client_cert"), ("key", "tls_client_key")):
            file = Path(shared) / f"{option}.pem"
            file.write_text(getattr(security, content))
            tls += [f"--tls-{option}", str(file)]
        with SLURMCluster(
            cores=1,
            processes=1,
            memory="2GB",
            walltime="01:00:00",
            queue=QUEUE,
            scheduler_options={"dashboard_address": None},
            worker_extra_args=["--lifetime", "50m", "--lifetime-stagger", "4m"],
            job_script_prologue=["export OMP_NUM_THREADS=1"],
            security=security,
            shared_temp_directory=shared,
            log_directory=str(Path.cwd()),
        ) as cluster:
            cluster.adapt(minimum_jobs=min(2, JOBS), maximum_jobs=JOBS)
            command = [
                sys.executable,
                "-m",
                "metarule",
                "search",
                *sys.argv[1:],
                "--cluster",
                cluster.scheduler_address,
            ]
            code = subprocess.run([*command, *tls], check=False).returncode
    sys.exit(code)
