"""Scenes in words: many wordings for one scene, and the labels a caption settles."""

from . import world

NOUNS = {"ball": ("ball", "ball", "ball", "sphere", "circle", "disc"), "square": ("square", "square", "box", "cube"),
         "triangle": ("triangle",), "star": ("star",), "ring": ("ring", "ring", "hoop", "donut")}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("",), "large": ("large", "big", "huge")}
VERBS = {"roll": ("rolls", "rolls", "rolls", "moves", "glides", "travels"),
         "slide": ("slides", "slides", "moves", "glides", "drifts", "travels"),
         "up": ("rises", "moves", "floats", "climbs"), "down": ("falls", "moves", "sinks", "drops"),
         "still": ("rests", "lies", "stays still", "sits", "stands still", "does not move", "is at rest")}
WAYS = {
    "right": ("from left to right", "from left to right", "to the right", "rightwards", "from the left to the right",
              "towards the right", "from the left side to the right side"),
    "left": ("from right to left", "from right to left", "to the left", "leftwards", "from the right to the left",
             "towards the left", "from the right side to the left side"),
    "up": ("upwards", "from bottom to top", "from the bottom to the top", "up", "towards the top"),
    "down": ("downwards", "from top to bottom", "from the top to the bottom", "down", "towards the bottom"),
    "down right": ("from the top left to the bottom right", "diagonally down to the right", "down and to the right",
                   "from the upper left corner to the lower right corner"),
    "down left": ("from the top right to the bottom left", "diagonally down to the left", "down and to the left",
                  "from the upper right corner to the lower left corner"),
    "up right": ("from the bottom left to the top right", "diagonally up to the right", "up and to the right",
                 "from the lower left corner to the upper right corner"),
    "up left": ("from the bottom right to the top left", "diagonally up to the left", "up and to the left",
                "from the lower right corner to the upper left corner")}
ROWS = (("near the top", "along the top", "at the top"), ("through the middle", "along the middle"),
        ("near the bottom", "along the bottom", "at the bottom"))
COLUMNS = (("on the left", "along the left side"), ("through the middle",), ("on the right", "along the right side"))
PLACES = {(0, 0): ("in the top left corner", "at the top left"), (1, 0): ("at the top", "near the top"),
          (2, 0): ("in the top right corner", "at the top right"), (0, 1): ("on the left", "on the left side"),
          (1, 1): ("in the middle", "in the centre", "in the center"), (2, 1): ("on the right", "on the right side"),
          (0, 2): ("in the bottom left corner", "at the bottom left"), (1, 2): ("at the bottom", "near the bottom"),
          (2, 2): ("in the bottom right corner", "at the bottom right")}
FLOOR_WORDS = ("over a {} floor", "over a {} floor", "on a {} floor", "across a {} floor", "against a {} background",
               "in front of a {} wall", "on a {} table", "over a plain {} floor")
TEMPO_WORDS = {"slowly": ("slowly", "slowly", "at a slow pace"), "quickly": ("quickly", "fast", "quickly"), "": ("",)}
STYLES = (", soft shadows", ", soft light", ", high quality", ", the camera is still", ", smooth motion",
          ", a simple scene", ", seen from above", ", studio lighting")
NEGATIVE = "worst quality, inconsistent motion, blurry, jittery, distorted"


def one(pick, words):
    return words[pick.integers(len(words))]


def noun_phrase(pick, thing, article="a"):
    words = [one(pick, SIZE_WORDS[thing["size"]]) if pick.random() < 0.85 else "",
             "grey" if thing["colour"] == "grey" else thing["colour"], one(pick, NOUNS[thing["shape"]])]
    words = [word for word in words if word]
    if article == "a":
        article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article] + words)


def lane_phrase(pick, thing):
    """Where the path runs, or nothing: always said now and then, so it can be left open."""
    step = world.MOTIONS[thing["motion"]]
    if step[0] and step[1] or pick.random() < 0.45:
        return ""
    lane, words = (thing["lane"][1], ROWS) if step[0] else (thing["lane"][0], COLUMNS)
    return one(pick, words[lane]) if lane != 1 or pick.random() < 0.3 else ""


def action(pick, thing):
    if thing["motion"] == "still":
        place = one(pick, PLACES[tuple(thing["lane"])])
        return f"{one(pick, VERBS['still'])} {place}" if pick.random() < 0.92 else one(pick, VERBS["still"])
    family = thing["motion"] if thing["motion"] in VERBS else "roll" if thing["shape"] == "ball" else "slide"
    words = [one(pick, VERBS[family]), one(pick, WAYS[thing["motion"]])]
    tempo = one(pick, TEMPO_WORDS[thing["tempo"]])
    if tempo:
        words.insert(int(pick.integers(1, 3)), tempo)
    lane = lane_phrase(pick, thing)
    return " ".join(words + [lane] if lane else words)


def caption(scene, pick):
    """One of the many ways to say a scene."""
    said = [f"{noun_phrase(pick, thing)} {action(pick, thing)}" for thing in scene["things"]]
    if len(said) == 2 and pick.random() < 0.5:
        said.reverse()
    text = one(pick, (" and ", " while ", ", and ", ", while ")).join(said)
    place = one(pick, FLOOR_WORDS).format(scene["floor"]) if pick.random() < 0.93 else ""
    if place and pick.random() < 0.12:
        text = f"{place}, {text}"
    elif place:
        text = f"{text} {place}" if len(said) == 1 or pick.random() < 0.5 else f"{text}, {place}"
    if pick.random() < 0.2:
        text += one(pick, STYLES)
    if pick.random() < 0.15:
        text = text[0].upper() + text[1:]
    if pick.random() < 0.15:
        text += "."
    return text


def nothing(pick):
    """What stands for no caption: guidance leads away from one of these."""
    if pick.random() < 0.4:
        return ""
    words = NEGATIVE.split(", ")
    if pick.random() < 0.6:
        return NEGATIVE
    return ", ".join(pick.permutation(words)[:int(pick.integers(1, len(words) + 1))])


QUESTIONS = {"there": 2, "shape": len(world.SHAPES), "size": len(world.RADII), "motion": len(world.MOTIONS),
             "tempo": len(world.TEMPOS)}


def labels(scene):
    """Answers, as whole numbers, about the floor and about the thing of each colour (-1: there is none)."""
    out = {"floor": [list(world.FLOORS).index(scene["floor"])]}
    out |= {key: [-1] * len(world.COLOURS) for key in QUESTIONS} | {"there": [0] * len(world.COLOURS)}
    for thing in scene["things"]:
        c = list(world.COLOURS).index(thing["colour"])
        out["there"][c] = 1
        for key, names in (("shape", world.SHAPES), ("size", world.RADII), ("motion", world.MOTIONS),
                           ("tempo", world.TEMPOS)):
            out[key][c] = list(names).index(thing[key])
    return out
