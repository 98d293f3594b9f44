"""Every test runs on one thread, as every worker of the package does, and from fixed addresses."""

from __future__ import annotations

import sys

import pytest
import torch

from metarule.cli import main

torch.set_num_threads(1)


@pytest.fixture
def metarule(capsys, monkeypatch):
    """Run the command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["metarule", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        out, err = capsys.readouterr()
        return int(exit.value.code or 0), out, err

    return run
