"""Rows that nobody teaches: rules of pre and post activity alone, with a taught readout where a task has targets.

Behind a frozen readout they are at chance, as they hear of no target. Their one hidden layer is no bottleneck, so that
their autoencoders' errors do not compare with those of other rows. A readout of random features does well on digits:
an untrained layer of 128 units gave 0.958 (tanh) and 0.978 (relu), which Sanger's rule and BCM do not beat; untrained
soft winners gave 0.81, so that the rows which compete do learn their features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metarule.credit import CreditAssignment
from metarule.credit.none import Nobody
from metarule.credit.soft_winners import SoftWinners
from metarule.credit.spike_stream import SpikeStream
from metarule.credit.taught_readout import TaughtReadout
from metarule.rules import Rule
from metarule.rules.bcm import Bcm
from metarule.rules.sanger import Sanger
from metarule.rules.terms import Terms
from metarule.rules.textbook import Delta, Hebb, Oja, SoftHebb, SubspaceOja
from metarule.synapses.adam import Adam
from metarule.synapses.sgd import Sgd
from metarule.zoo.base import Algorithm, Host

UNTAUGHT: dict[str, str] = dict.fromkeys(
    ("digits", "frozen", "autoencoder"), "it hears of no targets; a row with a readout does"
)


def _with_readout(
    source: str,
    summary: str,
    rule: Rule,
    values: Mapping[str, float],
    credit: CreditAssignment | None = None,
    synapse: Sgd | None = None,
    **host: Any,
) -> Algorithm:
    """Hidden layers learn by `rule`, the readout by the delta rule under Adam."""
    return Algorithm(
        source,
        summary,
        credit or TaughtReadout(),
        {"forward": rule, "readout": Delta()},
        {"forward": synapse or Sgd(), "readout": Adam()},
        {"synapse.readout.rate": 0.01, **values},
        free=("synapse.readout.rate",),
        host=Host(**host),
    )


UNSUPERVISED: dict[str, Algorithm] = {
    "hebb": Algorithm(
        "Hebb 1949", "what fires together wires together", Nobody(), {"forward": Hebb()}, not_for=UNTAUGHT
    ),
    "oja": Algorithm(
        "Oja 1982", "the first principal component, every unit alone", Nobody(), {"forward": Oja()}, not_for=UNTAUGHT
    ),
    "subspace_oja": Algorithm(
        "Oja 1989", "the principal subspace", Nobody(), {"forward": SubspaceOja()}, not_for=UNTAUGHT
    ),
    "hebb_readout": _with_readout(
        "Hebb 1949; Rumelhart and Zipser 1985",
        "Hebb with decay among soft winners, under a readout",
        Hebb(),
        # who wins more grows longer, and wins more: thresholds have to be quicker than that
        {"synapse.forward.rate": 0.1, "credit.homeostasis": 0.5},
        SoftWinners(),
        Sgd(weight_decay=0.03),
        hidden=(128,),
    ),
    "oja_readout": _with_readout(
        "Oja 1982; Rumelhart and Zipser 1985",
        "Oja among soft winners, under a readout",
        Oja(),
        # weights of length |x| instead of 1: drives, and with them the competition, are sharper by as much
        {"synapse.forward.rate": 0.1, "credit.gain": 5.0},
        SoftWinners(),
        hidden=(128,),
    ),
    "sanger": _with_readout(
        "Sanger 1989",
        "principal components one by one, under a readout",
        Sanger(),
        {"synapse.forward.rate": 0.03},
        hidden=(64,),
    ),
    "bcm": _with_readout(
        "Bienenstock, Cooper and Munro 1982",
        "a sliding threshold makes every unit selective, under a readout",
        Bcm(memory=0.99),
        {"synapse.forward.rate": 1e-3},
        hidden=(128,),
        activation="relu",
    ),
    "stdp": _with_readout(
        "Song, Miller and Abbott 2000; Nessler et al. 2013",
        "pre before post strengthens, post before pre weakens; a winner forgets what was silent",
        Terms(("post_pre_ref", "post_ref_pre", "post_weight"), normalise=False),
        {"rule.forward.post_pre_ref": 0.2, "rule.forward.post_ref_pre": -0.06, "rule.forward.post_weight": 0.3},
        SpikeStream(),
        hidden=(128,),
    ),
    "softhebb": _with_readout(
        "Moraitis et al. 2022",
        "soft winners take the direction of what they win, under a readout",
        SoftHebb(),
        {"synapse.forward.rate": 0.3},
        SoftWinners(),
        hidden=(128,),
    ),
}
"""Hidden layers hear of no error: what they learn depends on the inputs alone."""
