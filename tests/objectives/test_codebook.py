"""VQ-VAE's loss, perplexity and the codebook's own step against loops and closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from cvi_widgets.objectives import Codebook, bernoulli_nats, follow, perplexity, restart, vq_vae


def test_the_loss_is_reconstruction_and_the_two_distances() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, mu, z = (torch.randn(2, 3, 4, 4, generator=generator) for _ in range(3))
    x = torch.rand(2, 3, 4, 4, generator=generator)
    codes = torch.randint(0, 9, (2, 1, 4, 4), generator=generator)
    distance = sum(
        sum((mu[i, k, a, b] - z[i, k, a, b]).item() ** 2 for k in range(3))
        for i in range(2) for a in range(4) for b in range(4)
    ) / 32  # fmt: skip
    mu.requires_grad_(), z.requires_grad_()
    nats = bernoulli_nats(logits, x).mean().item()
    followed = vq_vae(logits, mu, z, codes, x, n_codes=9, commitment=0.25, trained=False)
    assert followed.loss.item() == pytest.approx(nats + 0.25 * distance, rel=1e-5)
    assert followed.kl.item() == pytest.approx(16 * math.log(9))
    pulls = torch.autograd.grad(followed.loss, [mu, z], allow_unused=True)
    torch.testing.assert_close(pulls[0], 0.25 * 2 * (mu - z).detach() / 32)
    assert pulls[1] is None
    trained = vq_vae(logits, mu, z, codes, x, n_codes=9, commitment=0.25, trained=True)
    assert trained.loss.item() == pytest.approx(nats + 1.25 * distance, rel=1e-5)
    pulls = torch.autograd.grad(trained.loss, [mu, z])
    torch.testing.assert_close(pulls[1], 2 * (z - mu).detach() / 32)
    torch.testing.assert_close(pulls[0], -0.25 * pulls[1])


@pytest.mark.parametrize(("codes", "expected"), [([3] * 8, 1.0), ([0, 1, 2, 3] * 2, 4.0), ([0, 0, 1, 1], 2.0)])
def test_perplexity_counts_equally_used_codes(codes: list[int], expected: float) -> None:
    assert perplexity(torch.tensor(codes), 16).item() == pytest.approx(expected, rel=1e-5)


def test_followed_codes_come_to_the_means_of_their_vectors() -> None:
    mu, codes = torch.tensor([[1.0, 0], [3, 0], [0, 5]]), torch.tensor([0, 0, 1])
    book = Codebook(torch.full((3, 2), 9.0), torch.ones(3), torch.full((3, 2), 9.0))
    once = follow(book, mu, codes, decay=0.75)
    # usage 0.75 + 0.25 * 2, total 0.75 * 9 + 0.25 * (1 + 3) in the first coordinate
    assert once.entries[0].tolist() == pytest.approx([(6.75 + 1.0) / 1.25, 6.75 / 1.25])
    assert once.entries[2].tolist() == [9.0, 9.0]
    for _ in range(200):
        book = follow(book, mu, codes, decay=0.75)
    torch.testing.assert_close(book.entries[:2], torch.tensor([[2.0, 0], [0, 5]]))
    assert torch.equal(follow(once, mu, codes, decay=0.75, keep=True).entries, once.entries)
    assert torch.isfinite(follow(book, mu, codes, decay=0.0).entries).all()


def test_only_idle_codes_start_anew_at_vectors_of_the_batch() -> None:
    book = Codebook(torch.arange(6.0).reshape(3, 2), torch.tensor([1.0, 0.001, 0.5]), torch.zeros(3, 2))
    mu = torch.tensor([[7.0, 7], [8, 8]])
    new = restart(book, mu, torch.tensor([0, 1, 0]), below=0.01)
    assert new.entries.tolist() == [[0, 1], [8, 8], [4, 5]]
    assert new.usage.tolist() == pytest.approx([1.0, 1.0, 0.5])
    assert new.total[1].tolist() == [8, 8]
