"""Networks for the tests: random weights, but with a classifier that uses all its classes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pcsr_lightning.networks import PCSR, build_network, default_config

MakeNetwork = Callable[..., PCSR]


@pytest.fixture(scope="session")
def make_network() -> MakeNetwork:
    """``make_network(backbone, num_classes)``, in evaluation mode."""

    def make(backbone: str = "fsrcnn", num_classes: int = 2, seed: int = 0) -> PCSR:
        torch.manual_seed(seed)
        model = build_network(default_config(backbone, num_classes))
        assert isinstance(model, PCSR)
        if model.classifier is not None:
            with torch.no_grad():
                # Verdicts that are strong, that vary, and that favour no class on average.
                last = [m for m in model.classifier.modules() if isinstance(m, torch.nn.Linear)]
                for layer in last:
                    layer.weight.mul_(4)
                lr = torch.rand(1, 3, 16, 16)
                feat = model.eval().features(lr)
                logits = model.logits(feat, model.grid((16, 16), (40, 40)))
                biased = last[-1] if last[-1].bias is not None else model.classifier.project
                biased.bias.sub_(logits.mean(dim=(0, 2, 3)))
        return model.eval()

    return make
