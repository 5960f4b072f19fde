"""Muon: momentum whose every matrix is made orthogonal before it is added. For these small networks it needs about
half of Adam's steps, and on large batches its own cost is small."""

import torch


STEPS = 5                          # of Newton and Schulz


def factor(a):
    """What a step multiplies x with, a = x x'."""
    return 3.4445 * torch.eye(a.shape[1], device=a.device, dtype=a.dtype) - 4.7750 * a + 2.0315 * (a @ a)


def orthogonal(m, kind=torch.float32):
    """[n, r, c], r <= c -> about the nearest matrices with orthogonal rows, computed in `kind`. In fp32 all factors of
    a wide matrix come from its small square x x', and it is multiplied once, with their product: 2 r^2 c + 17 r^3 in
    place of 10 r^2 c + 5 r^3. bf16 is too coarse for that, as noise grows where a matrix has no rows of its own."""
    x = (m / (m.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-8)).to(kind)
    if kind != torch.float32 or x.shape[2] < 1.5 * x.shape[1]:
        for _ in range(STEPS):
            x = factor(x @ x.transpose(1, 2)) @ x
        return x.float()
    a = x @ x.transpose(1, 2)
    q = product = factor(a)
    for _ in range(STEPS - 1):
        a = a @ (q @ q)
        q = factor(a)
        product = q @ product
    return product @ x


def blocks(u):
    """A gradient as matrices [n, r, c], r <= c, that are made orthogonal one by one. A convolution with many rows is
    cut into pieces of 128: its cost grows with the square of the rows."""
    m = u.flatten(1)
    if m.shape[0] > m.shape[1]:
        return m.T[None]
    if u.ndim == 5 and m.shape[0] > 128 and m.shape[0] % 128 == 0:
        return m.unflatten(0, (-1, 128))
    return m[None]


def restore(b, u):
    if u.shape[0] > u[0].numel():
        return b[0].T.reshape(u.shape)
    return b.reshape(u.shape)


class Muon(torch.optim.Optimizer):
    def __init__(self, weights, lr, momentum=0.95, weight_decay=0.0, kind=torch.float32):
        super().__init__([{"params": weights}], {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.kind = kind

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            alike = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(state["momentum"], group["momentum"])
                cut = blocks(update)
                alike.setdefault(tuple(cut.shape), []).append((p, update, cut))
            for items in alike.values():
                n = len(items[0][2])
                done = orthogonal(torch.cat([cut for _, _, cut in items]), self.kind).split(n)
                for (p, update, _), piece in zip(items, done):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    tall = max(1.0, p.shape[0] / p[0].numel()) ** 0.5
                    p.add_(restore(piece, update), alpha=-group["lr"] * tall)
