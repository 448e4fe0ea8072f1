"""Constants that the renderer, the training stages, the measurements and the benchmarks of shanshui-tiny share."""

SIZE = 128  # pixels: height and width of the frames that the family's models are trained on
FPS = 4  # frames per second; at this rate a camera moves far enough in 16 frames to be seen and learned
LANGUAGES = ("en", "zh")  # of captions and prompts

# Seeds of rendered scenes. Each number stands for one set, and no two sets share a scene.
TRAINING_SEED = 1  # scenes that the models learn from
HELD_OUT_SEED = 2  # scenes that measurements compare with; no model is trained on them
PROMPTS_SEED = 3  # scenes whose captions are the prompts of generated clips in `measure.py` and the benchmarks
PICTURES_SEED = 6  # scenes that the image retention branch learns from
