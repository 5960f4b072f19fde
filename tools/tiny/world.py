"""The world the tiny model knows: shapes of one colour that move, or rest, over a softly lit floor.

A scene is a plain dict of numbers and names (it goes to JSON as it is); `render` paints it, any window and
any frames of it, and `captions.caption` says it in words. Lengths are in pixels and do not grow with the
picture, nor do speeds, so that a larger picture holds more floor, not larger or faster things; times are in seconds.
"""

import numpy as np

SHAPES = ("ball", "square", "triangle", "star", "ring")
COLOURS = {"red": (226, 38, 36), "orange": (246, 130, 20), "yellow": (250, 218, 40), "green": (38, 172, 58),
           "cyan": (36, 200, 216), "blue": (36, 78, 226), "purple": (140, 48, 204), "pink": (246, 104, 178)}
FLOORS = {"grey": (128, 130, 134), "white": (224, 224, 220), "black": (44, 45, 50), "blue": (84, 110, 160),
          "green": (98, 138, 102), "brown": (136, 106, 82), "purple": (118, 98, 148),
          "yellow": (200, 182, 122), "red": (154, 88, 84)}
RADII = {"small": 16.0, "medium": 24.0, "large": 34.0}
TEMPOS = {"slowly": (32, 48), "": (70, 105), "quickly": (150, 210)}         # pixels a second, from end to end
MOTIONS = {"still": (0, 0), "right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1),
           "down right": (1, 1), "down left": (-1, 1), "up right": (1, -1), "up left": (-1, -1)}
LANES = (0.27, 0.5, 0.73)          # of the width or the height: where things rest and paths run
ENDS = (0.2, 0.8)                  # where a path begins and ends
CLEAR = 4                          # a thing keeps this far from the edge, and from another thing

SIZES = ((96, 96), (128, 96), (96, 128), (128, 128), (160, 96), (160, 128), (128, 160), (192, 128),
         (160, 160), (192, 160), (256, 160), (224, 128), (256, 128), (64, 96), (96, 64), (64, 64),
         (128, 192), (160, 192), (128, 224), (96, 256), (128, 256), (160, 256),
         (320, 96), (288, 96), (288, 128), (320, 128), (256, 96), (192, 192), (224, 160), (160, 224))
LENGTHS = (9, 17, 25, 33)
RATES = (20, 24, 25, 30)

EASE = 0.8                         # the last fifth of a path slows down
SOFT = 2.6                         # pixels over which an edge fades
LIGHT = np.array((-0.45, -0.6, 0.66), np.float32)
SHADOW = (0.22, 0.32)              # its offset, in radii


# ---- choosing a scene --------------------------------------------------------------------------


def draw_path(pick, motion, lane, width, height, radius):
    """(start, end) of the centre, in pixels."""
    size = np.array((width, height), float)
    step = np.array(MOTIONS[motion])
    at = np.array([LANES[k] for k in lane])
    start, end = at.copy(), at.copy()
    for axis in range(2):
        if step[axis]:
            start[axis], end[axis] = ENDS[::step[axis]]
    jitter = pick.uniform(-0.03, 0.03, 2)
    margin = radius * 1.24 + CLEAR
    return [np.clip((p + jitter) * size, margin, size - margin) for p in (start, end)]


def draw_thing(pick, width, height, still=0.2, wanted=None):
    wanted = wanted or {}
    shape = wanted.get("shape") or str(pick.choice(SHAPES, p=(0.28, 0.18, 0.18, 0.18, 0.18)))
    names = [name for name in RADII if RADII[name] <= 0.3 * min(width, height)]
    size = str(pick.choice(names))
    radius = RADII[size] * pick.uniform(0.94, 1.06)
    motions = list(MOTIONS)
    odds = np.array([still] + [0.6 * (1 - still) / 4] * 4 + [0.4 * (1 - still) / 4] * 4)
    motion = wanted.get("motion") or motions[pick.choice(len(motions), p=odds / odds.sum())]
    lane = [int(pick.choice(3, p=(0.25, 0.5, 0.25))) for _ in range(2)]
    tempo = str(pick.choice(list(TEMPOS), p=(0.2, 0.6, 0.2))) if motion != "still" and not wanted else ""
    start, end = draw_path(pick, motion, lane, width, height, radius)
    seconds = max(np.linalg.norm(end - start), 1.0) / pick.uniform(*TEMPOS[tempo])
    colour = wanted.get("colour") or str(pick.choice(list(COLOURS)))
    return {"shape": shape, "colour": colour, "size": size, "radius": float(radius),
            "motion": motion, "lane": lane, "tempo": tempo, "seconds": float(seconds),
            "start": start.tolist(), "end": end.tolist(), "tint": pick.uniform(-8, 8, 3).tolist()}


def allowed(thing, others, floor):
    if thing["colour"] == floor or (thing["colour"], floor) == ("orange", "brown"):
        return False
    times = np.linspace(0, 3.5, 40)
    for other in others:
        if other["colour"] == thing["colour"]:
            return False
        gap = np.linalg.norm(centres(thing, times) - centres(other, times), axis=1).min()
        if gap < 1.2 * (thing["radius"] + other["radius"]) + CLEAR:
            return False
    return True


def draw_scene(pick, size=None, frames=None, two=0.3, wanted=None):
    """A scene from the numpy Generator `pick`; `wanted` {attribute: name} holds for its first thing."""
    width, height = size or SIZES[pick.integers(len(SIZES))]
    frames = frames or int(pick.choice(LENGTHS, p=(0.2, 0.3, 0.25, 0.25)))
    floor = str(pick.choice(list(FLOORS)))
    want = 2 if pick.random() < two and width * height >= 96 * 128 else 1
    things = []
    for _ in range(40):
        thing = draw_thing(pick, width, height, *((0.45, None) if things else (0.18, wanted)))
        if allowed(thing, things, floor):
            things.append(thing)
        if len(things) == want:
            break
    rate = int(pick.choice(RATES, p=(0.2, 0.25, 0.3, 0.25)))
    return {"width": int(width), "height": int(height), "frames": int(frames), "rate": rate, "floor": floor,
            "floor_tint": pick.uniform(-6, 6, 3).tolist(), "light": float(pick.uniform(0.96, 1.04)),
            "things": things}


# ---- where things are --------------------------------------------------------------------------


def centres(thing, times):
    """[n, 2] centre at each time: at an even speed, braking at the end, then at rest."""
    s = np.clip(np.asarray(times, float) / thing["seconds"], 0, 1)
    p = (s - np.maximum(s - EASE, 0) ** 2 / (2 * (1 - EASE))) * 2 / (1 + EASE)
    start, end = np.array(thing["start"]), np.array(thing["end"])
    return start + p[:, None] * (end - start)


# ---- painting ----------------------------------------------------------------------------------


def triangle(x, y, r):
    """Distance to an upright triangle: close enough outside its corners."""
    big = 1.18 * r
    return np.maximum(y - 0.5 * big, 0.8660254 * np.abs(x) - 0.5 * y - 0.5 * big) - 0.06 * r


def star(x, y, r):
    """Distance to a star with five points, one of them up."""
    x, y, r = np.abs(x), -y, 1.2 * r
    for kx in (0.809017, -0.809017):
        d = 2 * np.maximum(kx * x - 0.587785 * y, 0)
        x, y = x - d * kx, y + d * 0.587785
    x, y = np.abs(x), y - r
    bx, by = 0.5 * 0.587785, 0.5 * 0.809017 - 1
    h = np.clip((x * bx + y * by) / (bx * bx + by * by), 0, r)
    return np.hypot(x - bx * h, y - by * h) * np.sign(y * bx - x * by)


def square(x, y, r):
    corner = 0.14 * r
    qx, qy = np.abs(x) - (0.88 * r - corner), np.abs(y) - (0.88 * r - corner)
    return np.hypot(np.maximum(qx, 0), np.maximum(qy, 0)) + np.minimum(np.maximum(qx, qy), 0) - corner


def distance(shape, x, y, r):
    """Signed distance, in pixels, from points to the outline; negative inside."""
    if shape == "ball":
        return np.hypot(x, y) - r
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.73 * r) - 0.29 * r
    return {"square": square, "triangle": triangle, "star": star}[shape](x, y, r)


def shade(shape, x, y, r, d):
    """(brightness, highlight) of a thing's surface."""
    if shape == "ball":
        nx, ny = x / r, y / r
        nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0))
        lit = np.maximum(nx * LIGHT[0] + ny * LIGHT[1] + nz * LIGHT[2], 0)
        return 0.58 + 0.46 * lit, 0.5 * lit ** 14
    slope = -(0.6 * x + 0.8 * y) / r
    bevel = np.clip(-d / (0.22 * r), 0, 1)
    return 0.9 + 0.12 * slope + 0.1 * (bevel - 1), 0.07 * bevel * np.maximum(slope, 0)


def paint_floor(scene, xs, ys):
    """[h, w, 3]: brighter where the light falls, darker towards the corners."""
    width, height = scene["width"], scene["height"]
    u, v = (xs + 0.5) / width - 0.42, ((ys + 0.5) / height - 0.4)[:, None]
    glow = scene["light"] * (1.08 - 0.34 * (u * u + v * v))
    colour = np.array(FLOORS[scene["floor"]], np.float32) + np.array(scene["floor_tint"], np.float32)
    return (glow[..., None] * colour).astype(np.float32)


def paint_thing(frame, thing, cx, cy, left, top):
    """Draws into frame [h, w, 3], whose corner is at (left, top) of the picture."""
    height, width = frame.shape[:2]
    r, reach = thing["radius"], 2.0 * thing["radius"] + 3
    x0, x1 = (int(np.clip(v - left, 0, width)) for v in (cx - reach, cx + reach + 1))
    y0, y1 = (int(np.clip(v - top, 0, height)) for v in (cy - reach, cy + reach + 1))
    if x0 >= x1 or y0 >= y1:
        return
    x = (np.arange(x0, x1, dtype=np.float32) + np.float32(left + 0.5 - cx))[None, :]
    y = (np.arange(y0, y1, dtype=np.float32) + np.float32(top + 0.5 - cy))[:, None]
    box = frame[y0:y1, x0:x1]
    d = distance(thing["shape"], x - SHADOW[0] * r, y - SHADOW[1] * r, r)
    fade = np.clip(0.5 - d / (0.75 * r), 0, 1)
    box *= (1 - 0.42 * fade * fade * (3 - 2 * fade))[..., None]
    x, y = np.broadcast_arrays(x, y)
    d = distance(thing["shape"], x, y, r)
    cover = np.clip(0.5 - d / SOFT, 0, 1)[..., None]
    bright, highlight = shade(thing["shape"], x, y, r, d)
    colour = np.array(COLOURS[thing["colour"]], np.float32) + np.array(thing["tint"], np.float32)
    surface = bright[..., None] * colour
    surface += highlight[..., None] * (255 - surface)
    box += cover * (surface - box)


def render(scene, window=None, frames=None):
    """uint8 [F, h, w, 3]; window = (left, top, width, height), frames = numbers of frames."""
    left, top, width, height = window or (0, 0, scene["width"], scene["height"])
    frames = range(scene["frames"]) if frames is None else frames
    floor = paint_floor(scene, left + np.arange(width, dtype=np.float32), top + np.arange(height, dtype=np.float32))
    times = np.array(list(frames)) / scene["rate"]
    paths = [centres(thing, times) for thing in scene["things"]]
    out = np.empty((len(times), height, width, 3), np.uint8)
    for f in range(len(times)):
        frame = floor.copy()
        for thing, path in zip(scene["things"], paths):
            paint_thing(frame, thing, path[f, 0], path[f, 1], left, top)
        out[f] = np.clip(frame + 0.5, 0, 255)
    return out


def crop(pick, width, height, frames):
    """uint8 [frames, height, width, 3] of some scene, most often where something moves."""
    size = SIZES[pick.integers(len(SIZES))]
    size = (max(size[0], width), max(size[1], height))
    scene = draw_scene(pick, size, max(frames, 33), two=0.4)
    first = int(pick.integers(0, scene["frames"] - frames + 1)) if pick.random() < 0.5 else 0
    middle = (first + frames / 2) / scene["rate"]
    thing = scene["things"][pick.integers(len(scene["things"]))]
    aim = centres(thing, [middle])[0] + pick.normal(0, 0.3, 2) * (width, height)
    left = int(np.clip(aim[0] - width / 2, 0, size[0] - width))
    top = int(np.clip(aim[1] - height / 2, 0, size[1] - height))
    return render(scene, (left, top, width, height), range(first, first + frames))
