"""How well planted circuits are found as their weights get noisy.

    python tests/benchmarks/bench_circuits.py [--pairs 512] [--seeds 5]

One table: for each kind of circuit (four factors, two hidden layers a side, three noise units in each) and each amount
of weight noise (in root mean squares of the layer's planted weights), precision and recall of edges, mean over seeds
with their standard deviation, and what the circuit that was found carries. The truth is what was planted: with noise,
further edges really exist in the network, and a method that finds them is not wrong about the network.
"""

from __future__ import annotations

import argparse

import numpy as np

import cvi_widgets as cvi
from cvi_widgets.interventions.motifs import score

NOISE = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


def main() -> None:
    """Run and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=int, default=512)
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--depth", type=int, default=2)
    given = options.parse_args()
    print(f"{given.pairs} pairs per factor, {given.seeds} seeds, {given.depth} hidden layers a side")
    print(f"{'kind':10s} {'noise':>6s} {'precision':>14s} {'recall':>14s} {'faithful':>9s} {'complete':>9s}")
    for kind in ("dedicated", "shared", "redundant", "gated", "mixed"):
        for noise in NOISE:
            rows = np.array([_one(kind, noise, given.depth, seed, given.pairs) for seed in range(given.seeds)])
            mean, sd = rows.mean(0), rows.std(0, ddof=1)
            edges = "  ".join(f"{m:5.2f} +- {s:4.2f}" for m, s in zip(mean[:2], sd[:2], strict=True))
            print(f"{kind:10s} {noise:6.2f}  {edges} {mean[2]:9.2f} {mean[3]:9.2f}", flush=True)


def _one(kind: str, noise: float, depth: int, seed: int, pairs: int) -> tuple[float, float, float, float]:
    truth = cvi.planted(kind, depth=depth, noise=noise, noise_units=3, seed=seed)
    found = cvi.circuit(truth.model, truth.data, pairs=pairs, regions=truth.regions, draws=20)
    overall = score(found.graph(), truth.graph).loc["overall"]
    judged = cvi.faithfulness(truth.model, found, truth.data, pairs=128, random=0, draws=20).sel(outcome="image")
    means = (float(judged[name].mean()) for name in ("faithfulness", "completeness"))
    return float(overall["precision"]), float(overall["recall"]), *means


if __name__ == "__main__":
    main()
