"""What a rendered landscape clip shows and what moves in it: the one description that the renderer, the captions and
the measurements share.
"""

from dataclasses import dataclass, fields, replace

import numpy as np


PALETTES = ("ink", "blue_green", "autumn", "snow", "dawn")
CAMERAS = ("still", "left", "right", "closer", "away")
WATERS = ("none", "lake", "river")
BOATS = ("none", "still", "left", "right")
DIRECTIONS = ("none", "left", "right")  # of mist and birds
WEATHERS = ("none", "rain", "snowfall", "petals")
TREES = ("none", "pines", "bamboo")
LIGHTS = ("none", "sun", "moon")
LAYERS = (2, 3, 4, 5)


@dataclass(frozen=True)
class Scene:
    """A landscape, as a caption tells it, plus the seed of everything that a caption leaves open.

    `camera` names the way the camera travels: with "left" the mountains move to the right of the picture; "closer"
    magnifies, "away" shrinks. `boat`, `birds` and `mist` name the side of the picture they move to. A boat needs
    water.
    """

    palette: str = "ink"
    layers: int = 3
    camera: str = "still"
    water: str = "none"
    boat: str = "none"
    mist: str = "none"
    birds: str = "none"
    weather: str = "none"
    trees: str = "none"
    light: str = "none"
    waterfall: bool = False
    pavilion: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` is {getattr(self, name)!r}, but has to be one of {allowed}.")
        if self.boat != "none" and self.water == "none":
            raise ValueError(f"A boat ({self.boat!r}) needs water, but `water` is 'none'.")


CHOICES = {
    "palette": PALETTES,
    "layers": LAYERS,
    "camera": CAMERAS,
    "water": WATERS,
    "boat": BOATS,
    "mist": DIRECTIONS,
    "birds": DIRECTIONS,
    "weather": WEATHERS,
    "trees": TREES,
    "light": LIGHTS,
    "waterfall": (False, True),
    "pavilion": (False, True),
}
MOVING = ("camera", "boat", "mist", "birds")  # attributes whose values are directions of motion
WAYS = ("camera", "boat", "birds")  # attributes whose first frame shows where they go
# What a viewer can name, seed left out: two scenes that agree here have the same caption.
ATTRIBUTES = tuple(field.name for field in fields(Scene) if field.name != "seed")


def sample_beginning(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same landscape whose camera, boat and birds go any way, for `render_clip`'s `begins_like`.

    Where things stand in the first frame of a rendered clip tells which way they are going: the composition stands as
    laid out a second later. In a clip that begins like another, only the birds tell: they face their way.
    """

    def any_of(name: str, options: tuple) -> str:
        drawn = options[rng.integers(len(options))]
        return drawn if getattr(scene, name) != "none" else "none"

    return replace(
        scene, camera=any_of("camera", CAMERAS), boat=any_of("boat", BOATS[1:]), birds=any_of("birds", DIRECTIONS[1:])
    )


def sample_scene(rng: np.random.Generator, fine_motifs: bool = True) -> Scene:
    """Draw a scene.

    Args:
        rng: source of randomness; the scene's own seed is drawn from it as well.
        fine_motifs: False leaves out rain, snowfall, petals and bamboo, which 128 x 128 pixels behind an 8x
            autoencoder cannot carry.
    """

    def pick(options: tuple, probability: float):
        """`options[0]` means absence; with `probability` one of the others."""
        return options[1 + rng.integers(len(options) - 1)] if rng.random() < probability else options[0]

    water = pick(WATERS, 0.6)
    weather, trees = pick(WEATHERS, 0.3), pick(TREES, 0.4)
    if not fine_motifs:
        weather = "none"
        trees = "pines" if trees != "none" else "none"
    return Scene(
        palette=PALETTES[rng.integers(len(PALETTES))],
        layers=int(LAYERS[rng.integers(len(LAYERS))]),
        camera=CAMERAS[rng.integers(len(CAMERAS))],
        water=water,
        boat=pick(BOATS, 0.6) if water != "none" else "none",
        mist=pick(DIRECTIONS, 0.4),
        birds=pick(DIRECTIONS, 0.3),
        weather=weather,
        trees=trees,
        light=pick(LIGHTS, 0.6),
        waterfall=bool(rng.random() < 0.25),
        pavilion=bool(rng.random() < 0.3),
        seed=int(rng.integers(2**31)),
    )
