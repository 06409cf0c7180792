"""What disentanglement metrics cost, and whether the fast DCI ranks codes as the reference does.

`OMP_NUM_THREADS=1 python tests/benchmarks/bench_metrics.py` prints one table in about a quarter of an hour, nearly all
of it spent in the reference. The ranking takes 36 codes of graded quality with 2,000 examples to fit on, 10 latents
and factors of 3, 6, 8, 8 and 8 classes; costs are of 10,000 x 10 codes with dSprites' factors (3, 6, 40, 32, 32
classes), intervals and nulls included.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from cvi_widgets import metrics

sys.path.insert(0, str(Path(__file__).parents[1] / "metrics" / "disentanglement"))
import planted

RANKED = (3, 6, 8, 8, 8)
FITTED, HELD_OUT = 2_000, 1_000


def line(name: str, value: str) -> None:
    """One line of the table."""
    print(f"{name:64}{value:>14}", flush=True)


def cpu_seconds(call: Callable[[], xr.Dataset]) -> tuple[xr.Dataset, float]:
    """Result and CPU-seconds of this process, which other work on the machine disturbs less than a clock."""
    start = time.process_time()
    found = call()
    return found, time.process_time() - start


def rank_agreement() -> None:
    """Spearman correlation of the fast DCI with the reference over codes of graded quality."""
    scores: dict[str, list[list[float]]] = {"bagged": [], "dlib": []}
    for seed, (mixing, noise) in enumerate(planted.GRADES):
        factors = planted.classes(FITTED + HELD_OUT, RANKED, seed=100 + seed)
        codes = planted.graded(factors, 10, mixing, noise, seed)
        fit, test = (codes[:FITTED], factors[:FITTED]), (codes[FITTED:], factors[FITTED:])
        for convention, rows in scores.items():
            found = metrics.dci(*fit, test=test, convention=convention, draws=0, null_draws=0)
            rows.append(found["value"].values.tolist())
    fast, reference = (np.array(scores[name]) for name in ("bagged", "dlib"))
    for k, part in enumerate(("disentanglement", "completeness", "informativeness")):
        rho = float(spearmanr(fast[:, k], reference[:, k])[0])
        line(f"DCI {part}, bagged with reference, {len(fast)} codes (Spearman)", f"{rho:.4f}")


def costs() -> None:
    """CPU-seconds of every metric, and of the reference DCI."""
    codes, factors = planted.golden("noisy", "train")
    test = planted.golden("noisy", "test")
    calls: dict[str, Callable[[], xr.Dataset]] = {
        "MIG": lambda: metrics.mig(codes, factors),
        "SAP": lambda: metrics.sap(codes, factors, test=test),
        "modularity": lambda: metrics.modularity_score(codes, factors),
        "explicitness": lambda: metrics.explicitness(codes, factors, test=test),
        "FactorVAE score": lambda: metrics.factor_vae_score(codes, factors, test=test),
        "beta-VAE score": lambda: metrics.beta_vae_score(codes, factors, test=test),
        "IRS": lambda: metrics.irs(codes, factors),
        "InfoMEC": lambda: metrics.infomec(codes, factors, test=test),
        "UDR, 5 models": lambda: metrics.udr([codes[:, ::k] for k in (1, -1, 1, -1, 1)]),
        "DCI, held-out importance": lambda: metrics.dci(codes, factors, test=test, convention="permuted"),
    }
    for name, call in calls.items():
        line(f"{name} (CPU-s)", f"{cpu_seconds(call)[1]:.2f}")
    # Five of the codes are nearly dead; the reference fits them too, so here they count as alive.
    fast = cpu_seconds(lambda: metrics.dci(codes, factors, test=test, dead_variance=0))[1]
    plain = cpu_seconds(lambda: metrics.dci(codes, factors, test=test, dead_variance=0, null_draws=0))[1]
    found, slow = cpu_seconds(lambda: metrics.dci(codes, factors, test=test, convention="dlib"))
    line("DCI, bagged, with interval and null (CPU-s)", f"{fast:.2f}")
    line("DCI, bagged, with interval (CPU-s)", f"{plain:.2f}")
    line("DCI, reference, neither (CPU-s)", f"{slow:.2f}")
    line("bagged is faster by, with and without its null", f"{slow / fast:.0f}x, {slow / plain:.0f}x")
    line(
        "reference on these codes (dlib: 0.639 / 0.590 / 0.460)", " / ".join(f"{v:.3f}" for v in found["value"].values)
    )


if __name__ == "__main__":
    rank_agreement()
    costs()
