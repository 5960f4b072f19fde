"""What a clip shows, by plain image processing: colour, shape, place, direction, floor. No network looks."""

import numpy as np

from . import world

COLOUR_NAMES, FLOOR_NAMES = list(world.COLOURS), list(world.FLOORS)
MOVED, RESTED = 0.12, 0.08         # shares of the side of the picture


def chroma(rgb):
    rgb = np.asarray(rgb, np.float32)
    return rgb / (rgb.sum(-1, keepdims=True) + 60)


def things(frame):
    """(where something stands on the floor [H, W], index of the nearest colour [H, W], colour of the floor)."""
    c = chroma(frame)
    floor = np.median(frame.reshape(-1, 3), 0)
    mask = np.abs(c - chroma(floor)).sum(-1) > 0.085
    around = sum(np.roll(mask, (i, j), (0, 1)).astype(int) for i in (-1, 0, 1) for j in (-1, 0, 1))
    palette = chroma(list(world.COLOURS.values()))
    return mask & (around >= 5), np.abs(c[:, :, None] - palette).sum(-1).argmin(-1), floor


def centre(mask):
    ys, xs = np.nonzero(mask)
    return np.array((xs.mean() + 0.5, ys.mean() + 0.5)) if len(xs) >= 12 else None


def fits(mask):
    """{shape: overlap with the ideal shape of the same area at the same place}."""
    at, area = centre(mask), float(mask.sum())
    y, x = np.indices(mask.shape) + 0.5
    out = {}
    for shape in world.SHAPES:
        big = world.distance(shape, *np.meshgrid(np.arange(-80, 81) + 0.0, np.arange(-80, 81) + 0.0), 50.0) < 0
        r = 50 * (area / big.sum()) ** 0.5
        oy, ox = (v.mean() - 80 for v in np.nonzero(big))
        ideal = world.distance(shape, x - at[0] + ox * r / 50, y - at[1] + oy * r / 50, r) < 0
        out[shape] = (mask & ideal).sum() / max((mask | ideal).sum(), 1)
    return out


def motion(first, last, size):
    """The name of the motion, or None where it is neither clearly moving nor at rest."""
    move = (last - first) / size
    if np.abs(move).max() < RESTED:
        return "still"
    step = tuple(int(np.sign(m)) if abs(m) > MOVED else 0 for m in move)
    if 0 not in step and np.abs(move).max() > 3.5 * np.abs(move).min():
        step = tuple(s if abs(m) == np.abs(move).max() else 0 for s, m in zip(step, move))
    return next((name for name, s in world.MOTIONS.items() if s == step and name != "still"), None)


def judge(video, scene):
    """{attribute: right or wrong} for everything the scene asks of a video [F, H, W, 3]."""
    size = np.array((scene["width"], scene["height"]), float)
    frames = [things(video[f]) for f in np.linspace(0, len(video) - 1, 5).astype(int)]
    floors = chroma(list(world.FLOORS.values())), np.array(list(world.FLOORS.values()), float).mean(-1)
    floor = np.median([f[2] for f in frames], 0)
    far = 6 * np.abs(floors[0] - chroma(floor)).sum(-1) + np.abs(floors[1] - floor.mean()) / 128
    out = [("floor", FLOOR_NAMES[int(far.argmin())] == scene["floor"])]
    alone = len(scene["things"]) == 1
    for thing in scene["things"]:
        index = COLOUR_NAMES.index(thing["colour"])
        of_colour = [mask & (near == index) for mask, near, _ in frames]
        share = np.mean([m.sum() / max(f[0].sum(), 1) for m, f in zip(of_colour, frames)])
        masks = [f[0] for f in frames] if alone else of_colour
        at = [centre(m) for m in masks]
        out.append(("colour", bool(share > (0.6 if alone else 0.15))))
        if any(a is None for a in at):
            out += [("shape", False), ("motion", False)]
            continue
        overlap = [fits(m) for m in masks]
        best = max(world.SHAPES, key=lambda s: sum(o[s] for o in overlap))
        out.append(("shape", best == thing["shape"]))
        out.append(("motion", motion(at[0], at[-1], size) == thing["motion"]))
        if thing["motion"] == "still":
            lane = [int(np.abs(np.array(world.LANES) * size[k] - np.mean(at, 0)[k]).argmin()) for k in range(2)]
            out.append(("place", lane == list(thing["lane"])))
    return out


def tally(results):
    """[(attribute, right)] lists -> {attribute: share right, "all": share right}."""
    every = [item for row in results for item in row]
    names = sorted({name for name, _ in every})
    out = {name: float(np.mean([right for n, right in every if n == name])) for name in names}
    return out | {"all": float(np.mean([right for _, right in every]))}


# ---- what is asked -----------------------------------------------------------------------------


def plain(scene):
    """The scene said without flourish."""
    from . import captions
    said = []
    for thing in scene["things"]:
        size = "" if thing["size"] == "medium" else thing["size"]
        words = " ".join(w for w in (size, thing["colour"], thing["shape"]) if w)
        does = ("rests " + captions.PLACES[tuple(thing["lane"])][0] if thing["motion"] == "still" else
                ("rolls " if thing["shape"] == "ball" else "moves ") + captions.WAYS[thing["motion"]][0])
        said.append(f"{'an' if words[0] in 'aeiou' else 'a'} {words} {does}")
    return f"{' and '.join(said)} over a {scene['floor']} floor"


def questions(count, size, frames, rate, seed=7, two=0.0):
    """Scenes that ask for every colour, shape and motion about equally often."""
    out, k = [], 0
    while len(out) < count:
        n = len(out)
        wanted = {"shape": world.SHAPES[n % 5], "colour": COLOUR_NAMES[n % 8], "motion": list(world.MOTIONS)[n % 9]}
        scene = world.draw_scene(np.random.default_rng([seed, k]), size, frames, two, wanted)
        k += 1
        things = scene["things"]
        if things and len(things) == (2 if two else 1) and not any(thing["tempo"] for thing in things):
            out.append(scene | {"rate": rate})
    return out
