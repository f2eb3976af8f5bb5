"""Write privacy.json: epsilons by Google's dp-accounting, and clipped gradients by Opacus. Run once, by hand, for each of them.

python tests/facts/make_privacy_facts.py accounting > a.json     # needs dp-accounting
python tests/facts/make_privacy_facts.py clipping > b.json       # needs torch and opacus
python tests/facts/make_privacy_facts.py together a.json b.json > tests/facts/privacy.json
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import numpy as np


def accounting() -> dict:
    """Return epsilons at delta = 1e-5 by Renyi divergences and by privacy loss distributions."""
    import dp_accounting
    from dp_accounting.pld import pld_privacy_accountant
    from dp_accounting.rdp import rdp_privacy_accountant

    found = []
    for rate in (0.001, 0.005, 0.01, 0.03, 0.05, 0.1, 0.3, 1.0):
        for noise in (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 16.0):
            for n_steps in (1, 10, 100, 600, 3000, 20000):
                event = dp_accounting.GaussianDpEvent(noise)
                if rate < 1:
                    event = dp_accounting.PoissonSampledDpEvent(rate, event)
                by_rdp = rdp_privacy_accountant.RdpAccountant()
                epsilon = by_rdp.compose(event, n_steps).get_epsilon(1e-5)
                if not 0.1 <= epsilon <= 10:
                    continue
                exact = None
                if (rate, noise, n_steps) in ((0.05, 1.0, 600), (0.05, 2.0, 600), (0.05, 5.0, 600), (0.01, 1.0, 3000)):
                    exact = pld_privacy_accountant.PLDAccountant().compose(event, n_steps).get_epsilon(1e-5)
                found.append([noise, rate, n_steps, epsilon, exact])
    return {"made_with": f"dp-accounting {version('dp-accounting')}", "delta": 1e-5, "epsilons": found}


def clipping() -> dict:
    """Return clipped sums of a network with tanh, by single examples' gradients: Opacus' own, which divides by norm + 1e-6."""
    import opacus
    import torch
    from opacus.grad_sample import GradSampleModule

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    rng = np.random.default_rng(7)
    x, y, clip = rng.normal(size=(40, 6)), rng.integers(0, 3, 40), 3.0
    layers = [torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 3)]
    net = GradSampleModule(torch.nn.Sequential(*layers))
    loss = torch.nn.functional.cross_entropy(net(torch.tensor(x)), torch.tensor(y))
    loss.backward()
    samples = [p.grad_sample for p in net.parameters()]
    norms = torch.stack([g.reshape(len(g), -1).norm(dim=1) for g in samples], dim=1).norm(dim=1)
    factor = (clip / (norms + 1e-6)).clamp(max=1.0)
    sums = [torch.einsum("n,n...->...", factor, g) for g in samples]
    names = ["0.W", "0.b", "2.g", "2.b", "3.W", "3.b"]

    def ours(tensors: list) -> dict:
        return {n: (t.T if n.endswith("W") else t).detach().tolist() for n, t in zip(names, tensors, strict=True)}

    return {
        "made_with": f"torch {torch.__version__}, opacus {opacus.__version__}",
        **{"x": x.tolist(), "y": y.tolist(), "clip": clip, "norms": norms.tolist()},
        **{"params": ours(list(net.parameters())), "sums": ours(sums)},
    }


if __name__ == "__main__":
    if sys.argv[1] == "together":
        parts = [json.load(open(path)) for path in sys.argv[2:]]  # noqa: SIM115
        json.dump(dict(zip(("accounting", "clipping"), parts, strict=True)), sys.stdout, indent=0)
    else:
        json.dump({"accounting": accounting, "clipping": clipping}[sys.argv[1]](), sys.stdout, indent=0)
