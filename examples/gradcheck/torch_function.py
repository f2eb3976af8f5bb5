"""Check a torch.autograd.Function directly: gradcheck.from_torch makes two plain functions of it."""

from typing import Any

import numpy as np
import torch

import nnprofile as nn
from nnprofile.gradcheck import from_torch


class Swish(torch.autograd.Function):
    """y = x * sigmoid(b x)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Compute y."""
        ctx.save_for_backward(x, b)
        return x * torch.sigmoid(b * x)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute dx and db; db is the bug: it is not multiplied by dy."""
        x, b = ctx.saved_tensors
        s = torch.sigmoid(b * x)
        return dy * (s + b * x * s * (1 - s)), (x * x * s * (1 - s)).sum()


def main() -> nn.GradCheckReport:
    """Check it, and print the report."""
    x, b = np.random.default_rng(0).normal(size=(4, 3)), np.array(1.5)
    report = nn.check_function(*from_torch(Swish), x, b)
    print(report)
    return report


if __name__ == "__main__":
    main()
