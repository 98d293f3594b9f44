"""The bank's model card: what the analyses measured is written into the bank's own file.

python analysis/card.py runs/analysis
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from metarule.identification import bank as banks

ANALYSES = {
    "identification": "python analysis/identification.py runs/analysis/identification",
    "unknown_rules": "python analysis/unknown_rules.py runs/analysis/unknown_rules --runs runs/first_rule runs/oja",
    "published": "python analysis/published_protocol.py runs/analysis/published",
    "overlapping": "python analysis/published_protocol.py runs/analysis/overlapping --simulation overlapping_steps",
    "equations": "python analysis/equations.py runs/analysis/equations",
    "own_networks": "python analysis/own_networks.py runs/analysis/own_networks",
}
"""Analysis -> the command that makes its figures."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="the folder of the analyses' folders")
    parser.add_argument("--bank", type=Path, default=banks.DEFAULT)
    asked = parser.parse_args()
    bank = banks.load(asked.bank)
    figures = dict(bank.card["figures"])
    for name, command in ANALYSES.items():
        path = asked.folder / name / "figures.json"
        if path.exists():
            figures[name] = {"command": command, **json.loads(path.read_text())}
    replace(bank, card={**bank.card, "figures": figures}).save(asked.bank)
    print(f"{asked.bank}: figures of {', '.join(figures)}")


if __name__ == "__main__":
    main()
