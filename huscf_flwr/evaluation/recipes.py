"""Ways to score a generator, and to train the classifiers that do."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How generators are scored; compare only what was scored by the same one.

    Attributes
    ----------
    name: what outputs call it.
    plain: whether the classifier has neither batch norm nor dropout.
    batch: images of a step of the classifier's training.
    steps: how many steps, or None for `epochs`.
    epochs: passes over the images, where `steps` is None; what a pass leaves over begins the next.
    falling: whether the learning rate falls to zero, or stays.
    as_trained: whether classes are generated as often as they occur among the training images, or
        drawn with equal odds.
    rounded: whether generated images are rounded to 8 bits, as real ones are.
    score_images: images of the image score at the end, in one group, where real ones may be fewer;
        None: all, in groups as large as the held-out part.
    along_first: whether the generator is the one that the domain's first client has, along its own
        blocks and the server's; or the cluster's, of which a client may hold a part only.
    """

    name: str
    plain: bool
    batch: int
    steps: int | None
    epochs: int
    falling: bool
    as_trained: bool
    rounded: bool
    score_images: int | None
    along_first: bool


STANDARD = Recipe(
    name="standard",
    plain=False,
    batch=100,
    steps=400,
    epochs=0,
    falling=True,
    as_trained=True,
    rounded=True,
    score_images=None,
    along_first=False,
)
"""Real and generated images are learnt in the same short time; dropout keeps a classifier that
learns from generated images from relying on what only those have."""

AUTHORS = Recipe(
    name="authors",
    plain=True,
    batch=64,
    steps=None,
    epochs=15,
    falling=False,
    as_trained=False,
    rounded=False,
    score_images=5000,
    along_first=True,
)
"""As the code of the paper's authors scores, but for the classifier of the image score: they give
its weights, not its training; here it is trained on real images as that of utility is."""

RECIPES = {recipe.name: recipe for recipe in (STANDARD, AUTHORS)}
