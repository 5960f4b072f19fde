"""What the transformer's inner blocks are asked while it learns, so that they soon do the work of inner blocks: the
second where its token lies in the film, the fourth what the scene shows there. Not part of the checkpoint; the weight
of these questions falls with the learning rate, so that in the end only the flow counts."""

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from . import world

WHERE, WHAT = 1, 3                 # blocks that are asked
PLACE = 6                          # three coordinates as shares of the film, and its three sizes
FACTS = 5                          # of the nearest thing: offset, velocity, radius
SHAPES, COLOURS, FLOORS = (list(names) for names in (world.SHAPES, world.COLOURS, world.FLOORS))
NEAR = 96.0                        # pixels: the unit of offsets


def places(grid):
    """[f*h*w, PLACE]"""
    at = np.indices(grid).reshape(3, -1).T
    size = np.array(grid, float)
    share = (at + 0.5) / size - 0.5
    return np.concatenate([share, np.broadcast_to(np.log(size / 4), share.shape)], 1).astype(np.float32)


def facts(scene, grid):
    """([f*h*w, FACTS], [f*h*w] number of the shape, the same of the colour): the nearest thing in the middle of
    each latent frame's time."""
    f, i, j = np.indices(grid).reshape(3, -1)
    token = np.stack([32 * j + 16.0, 32 * i + 16.0], 1)
    times = np.maximum(8 * np.arange(grid[0]) - 3.5, 0) / scene["rate"]
    span = 8 / scene["rate"]
    numbers, near = [], []
    for thing in scene["things"]:
        centre = world.centres(thing, times)
        velocity = (world.centres(thing, times + span / 2) - world.centres(thing, np.maximum(times - span / 2, 0))) / 32
        offset = (centre[f] - token) / NEAR
        radius = np.full((len(f), 1), thing["radius"] / 24 - 1)
        numbers.append(np.concatenate([offset, velocity[f], radius], 1))
        near.append(np.hypot(*offset.T) - thing["radius"] / NEAR)
    which = np.argmin(near, 0)
    pick = np.array(numbers)[which, np.arange(len(f))].clip(-2, 2).astype(np.float32)
    shapes = np.array([SHAPES.index(thing["shape"]) for thing in scene["things"]])[which]
    colours = np.array([COLOURS.index(thing["colour"]) for thing in scene["things"]])[which]
    return pick, shapes, colours


def answers(scenes, grid):
    """What a batch of scenes on one grid should be answered with."""
    rows = [facts(scene, grid) for scene in scenes]
    return {"place": torch.from_numpy(places(grid)),
            "facts": torch.from_numpy(np.stack([r[0] for r in rows])),
            "shape": torch.from_numpy(np.stack([r[1] for r in rows])),
            "colour": torch.from_numpy(np.stack([r[2] for r in rows])),
            "floor": torch.tensor([FLOORS.index(scene["floor"]) for scene in scenes])}


class Guides(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.sizes = [FACTS, len(SHAPES), len(COLOURS), len(FLOORS)]
        self.where_glance = torch.nn.Linear(width, PLACE)
        self.what_glance = torch.nn.Linear(width, sum(self.sizes))
        self.heard = {}

    def listen(self, model):
        for block in (WHERE, WHAT):
            model.transformer_blocks[block].register_forward_hook(
                lambda _, __, out, block=block: self.heard.__setitem__(block, out))
        return self

    def forward(self, wanted):
        """(loss, {name: number}) of the last call of the model."""
        def told(block):
            x = self.heard.pop(block).float()
            return torch.nn.functional.rms_norm(x, x.shape[-1:])
        device = self.where_glance.weight.device
        wanted = {key: value.to(device) for key, value in wanted.items()}
        place = (self.where_glance(told(WHERE)) - wanted["place"]).square().mean()
        numbers, shape, colour, floor = self.what_glance(told(WHAT)).split(self.sizes, -1)
        off = (numbers - wanted["facts"]).square()
        names = [(shape, wanted["shape"]), (colour, wanted["colour"]),
                 (floor, wanted["floor"][:, None].expand(floor.shape[:2]))]
        asked = [cross_entropy(said.flatten(0, 1), right.flatten()) / np.log(said.shape[-1]) for said, right in names]
        loss = 2 * place + 2 * off.mean() + sum(asked)
        return loss, {"placed": place.detach(), "offset": off[..., :2].mean().detach() ** 0.5 * NEAR,
                      "velocity": off[..., 2:4].mean().detach() ** 0.5,
                      "shaped": (shape.argmax(-1) == wanted["shape"]).float().mean(),
                      "coloured": (colour.argmax(-1) == wanted["colour"]).float().mean()}
