"""Describe what a rendered clip shows and what moves in it.

The constants are shared by the renderer, the training stages, the measurements and the benchmarks.
"""

from dataclasses import dataclass, fields, replace

import numpy as np


SIZE = 128  # pixels: height and width of the frames that the family's models are trained on
FPS = 4  # frames per second; at this rate a camera moves far enough in 16 frames to be seen and learned
LANGUAGES = ("en", "zh")  # of captions and prompts

# Seeds of rendered scenes. Each number stands for one set, and no two sets share a scene.
TRAINING_SEED = 1  # scenes that the models learn from
HELD_OUT_SEED = 2  # scenes that measurements compare with; no model is trained on them
PROMPTS_SEED = 3  # scenes whose captions are the prompts of generated clips in `measure.py` and the benchmarks
PICTURES_SEED = 6  # scenes that the image retention branch learns from


PALETTES = ("ink", "blue_green", "autumn", "snow", "dawn")
CAMERAS = ("still", "left", "right", "closer", "away")
WATERS = ("none", "lake", "river")
BOATS = ("none", "still", "left", "right")
DIRECTIONS = ("none", "left", "right")  # of mist and birds
WEATHERS = ("none", "rain", "snowfall", "petals")
TREES = ("none", "pines", "bamboo")
LIGHTS = ("none", "sun", "moon")
LAYERS = (2, 3, 4, 5)
# The values of each attribute; the first one means absence where there is such a value.
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
WAYS = ("camera", "boat", "birds")  # attributes whose values an ordinary first frame reveals
COMPOSED = ("layers", "camera", "water", "seed")  # attributes on which the place of everything else depends


@dataclass(frozen=True)
class Scene:
    """A landscape as a caption describes it, and the seed of everything that a caption leaves open.

    `camera` names the way the camera travels: with "left" the mountains move to the right of the image; "closer"
    magnifies, "away" shrinks. `boat`, `birds` and `mist` name the side of the image they move to. A boat needs water.

    Raises:
        ValueError: An attribute has a value that is not in `CHOICES`, or a boat has no water.
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
                raise ValueError(f"`{name}` must be one of {allowed}, got {getattr(self, name)!r}.")
        if self.boat != "none" and self.water == "none":
            raise ValueError(f"`boat` must be 'none' without water, got {self.boat!r}; a boat needs water.")


# What a viewer can name, so without the seed: two scenes that agree here have the same captions.
ATTRIBUTES = tuple(field.name for field in fields(Scene) if field.name != "seed")


def sample_beginning(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return the same landscape with any ways of camera, boat and birds, for `begins_like` of `render_clip`.

    The composition appears as laid out after a second, so the positions in the first frame of an ordinary clip reveal
    where things are going. In a clip that begins like another one, only the birds reveal it: they face their way.
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
        rng: Source of randomness; the scene's own seed is drawn from it as well.
        fine_motifs: False omits rain, snowfall, petals and bamboo, which 128 x 128 pixels behind an 8x autoencoder
            cannot carry.
    """

    def any_of(options: tuple):
        return options[rng.integers(len(options))]

    def maybe(options: tuple, probability: float):
        """One of the options after the first with `probability`, else the first, which means absence."""
        return any_of(options[1:]) if rng.random() < probability else options[0]

    water = maybe(WATERS, 0.6)
    weather, trees = maybe(WEATHERS, 0.3), maybe(TREES, 0.4)
    return Scene(
        palette=any_of(PALETTES),
        layers=any_of(LAYERS),
        camera=any_of(CAMERAS),
        water=water,
        boat=maybe(BOATS, 0.6) if water != "none" else "none",
        mist=maybe(DIRECTIONS, 0.4),
        birds=maybe(DIRECTIONS, 0.3),
        weather=weather if fine_motifs else "none",
        trees=trees if fine_motifs or trees == "none" else "pines",
        light=maybe(LIGHTS, 0.6),
        waterfall=bool(rng.random() < 0.25),
        pavilion=bool(rng.random() < 0.3),
        seed=int(rng.integers(2**31)),
    )
