"""PyTorch with forward, loss and backward compiled by torch.compile, and the fused optimizer."""

from __future__ import annotations

from . import torch_

torch_.COMPILE = True
train, sequences = torch_.train, torch_.sequences
