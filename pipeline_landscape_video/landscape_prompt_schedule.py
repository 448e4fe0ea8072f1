"""
Change prompts over time: give each frame of a long clip prompt embeddings of its own.

A prompt over time is a dictionary of prompts by the frame at which they begin, `{0: "mist", 48: "rain"}`, as FreeNoise
in diffusers takes it. The pipeline encodes each prompt once, and blends the embeddings of a window's frames when the
window is sampled, so memory does not grow with the number of frames.
"""

import logging
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch


logger = logging.getLogger(__name__)

Prompt = str | dict[int, str]

# A blend of 16 frames jumps as much as a switch; one of 48 frames jumps half as much (`docs/long_video.md`).
MAX_TRANSITION = 48
MIN_FRAMES_PER_PROMPT = 16  # models that generate 16 frames show hardly anything of a prompt in fewer


class PromptSchedule:
    """
    Prompts of each clip over time, and the share of each prompt in each frame.

    Args:
        prompt: Prompt of all clips, or one per clip; `None` if the embeddings are given.
        negative_prompt: Negative prompt of all clips, or one per clip.
        batch_size: Number of clips.
        plan: `WindowPlan` of the clips. In a closed loop, the last prompt blends into the first one.
        transition: Frames in which one prompt blends into the next one, centered on the key. 0 switches at the key.
            `None`: 48, or fewer where the keys leave less room.
        per_window: Whether all frames of a window have the prompt of its middle frame, as in the papers (Consistency
            tuning, section 3.4).

    Raises:
        ValueError: The keys of a prompt over time do not begin at 0, do not increase, exceed the clip, or leave less
            room than `transition`.
    """

    def __init__(
        self,
        prompt: Prompt | Sequence[Prompt] | None,
        negative_prompt: Prompt | Sequence[Prompt] | None,
        batch_size: int,
        plan: Any,
        transition: int | None = None,
        per_window: bool = False,
    ) -> None:
        if transition is not None and (not isinstance(transition, Integral) or transition < 0):
            raise ValueError(f"`transition` must be a whole number of frames of at least 0, got {transition}.")
        self.plan, self.per_window = plan, per_window
        self.given = {"prompt": prompt, "negative_prompt": negative_prompt}
        clips = {name: _per_clip(name, value, batch_size) for name, value in self.given.items()}
        for name, prompts in clips.items():
            for one in prompts:
                check_keys(name, one, plan.length)
        self.num_keys = max(len(one) for prompts in clips.values() for one in prompts)
        if prompt is None and self.num_keys > 1:
            raise ValueError("`prompt` must be given for a `negative_prompt` over time, got its embeddings.")
        texts = {
            name: [text for one in prompts for text in _padded(one, self.num_keys)] for name, prompts in clips.items()
        }
        # Texts as the pipeline encodes them, `(batch * keys)` each; the prompts of a clip are together.
        self.texts = texts if prompt is not None else texts | {"prompt": None}
        # The shares of prompts, then of negative ones, `(batch, num_frames, keys)` each.
        self.shares = [
            torch.stack(
                [shares_of_keys([*one], self.num_keys, plan.length, transition, plan.closed_loop) for one in prompts]
            )
            for prompts in clips.values()
        ]

    def spread(self, embeds: torch.Tensor, guidance_terms: Sequence[bool]) -> torch.Tensor:
        """Return `embeds` as they are kept during sampling: for all frames if there is one window, else unchanged."""
        return self._of_frames(embeds, range(self.plan.length), guidance_terms) if self.plan.is_plain else embeds

    def select(self, embeds: torch.Tensor, frames: Sequence[int], guidance_terms: Sequence[bool]) -> torch.Tensor:
        """
        Return the embeddings of the frames of a window.

        Args:
            embeds: What `spread` returned for embeddings `(terms * batch * prompts, tokens, dim)`.
            frames: Indices of the frames.
            guidance_terms: For each guidance term, whether it sees the prompt rather than the negative one.

        Returns:
            A copy for each frame, `(terms * batch * len(frames), tokens, dim)`.
        """
        return embeds if self.plan.is_plain else self._of_frames(embeds, frames, guidance_terms)

    def _of_frames(self, embeds: torch.Tensor, frames: Sequence[int], guidance_terms: Sequence[bool]) -> torch.Tensor:
        if self.num_keys == 1:
            return embeds.repeat_interleave(len(frames), dim=0)
        if self.per_window:
            frames = [frames[len(frames) // 2]] * len(frames)
        prompts, negative_prompts = self.shares
        shares = torch.cat([prompts if sees else negative_prompts for sees in guidance_terms])[:, list(frames)]
        keys = embeds.unflatten(0, (len(shares), self.num_keys))
        return torch.einsum("cfk,cktd->cftd", shares.to(embeds), keys).flatten(0, 1)


def shares_of_keys(
    keys: Sequence[int], num_keys: int, num_frames: int, transition: int | None, closed_loop: bool
) -> torch.Tensor:
    """
    Return the share of each prompt in each frame, `(num_frames, num_keys)`; the shares of a frame sum to 1.

    Args:
        keys: Frames at which prompts begin, the first one 0. Further columns up to `num_keys` are 0.
        num_keys: Number of columns.
        num_frames: Number of frames.
        transition: Frames of a blend, see `PromptSchedule`.
        closed_loop: Whether the last prompt blends into the first one.

    Raises:
        ValueError: `transition` is longer than the keys allow.
    """
    shares = torch.zeros(num_frames, num_keys)
    joins = closed_loop and len(keys) > 1
    # Each change is (frame, prompt before, prompt after). In a loop, one is at the first frame, and again at the end.
    changes = [(key, index - 1, index) for index, key in enumerate(keys) if index > 0]
    if joins:
        changes = [(0, len(keys) - 1, 0), *changes, (num_frames, len(keys) - 1, 0)]
    shares[:, len(keys) - 1 if joins else 0] = 1
    middle = torch.arange(num_frames) + 0.5
    for place, (key, before, after) in enumerate(changes):
        # Half of a transition may use half of the frames up to another one, and all frames up to the ends of the clip.
        left = key - changes[place - 1][0] if place > 0 else 2 * key
        right = changes[place + 1][0] - key if place + 1 < len(changes) else 2 * (num_frames - key)
        room = min(distance for distance in (left, right) if distance > 0)
        if transition is not None and transition > room:
            raise ValueError(f"`transition` must be at most {room}, the room around frame {key}, got {transition}.")
        length = min(MAX_TRANSITION, room) if transition is None else transition
        # A switch is a transition of one frame: the share is 0 before the key and 1 from the key on.
        risen = ((middle - key) / max(length, 1) + 0.5).clamp(0, 1)
        shares[:, after] += risen
        shares[:, before] -= risen
    return shares


def check_keys(name: str, prompt: Any, num_frames: int) -> None:
    """
    Check a prompt over time, and log a warning if a prompt has few frames.

    Raises:
        ValueError: A key or text is wrong; the message begins with `name`.
    """
    keys = [*prompt]
    if not all(isinstance(key, Integral) for key in keys) or not all(
        isinstance(text, str) for text in prompt.values()
    ):
        raise ValueError(f"`{name}` over time must be texts by the number of their first frame, got {prompt}.")
    if keys[:1] != [0]:
        raise ValueError(f"`{name}` over time must begin at frame 0, got {keys}.")
    if keys != sorted(set(keys)):
        raise ValueError(f"`{name}` over time must have increasing frames, got {keys}.")
    if keys[-1] >= num_frames:
        raise ValueError(f"`{name}` over time must begin within the {num_frames} frames, got frame {keys[-1]}.")
    shortest = min((end - start for start, end in zip(keys, [*keys[1:], num_frames], strict=True)), default=0)
    if len(keys) > 1 and shortest < MIN_FRAMES_PER_PROMPT:
        logger.warning(
            "`%s` changes after %d frames; prompts need at least %d frames to be seen.",
            name,
            shortest,
            MIN_FRAMES_PER_PROMPT,
        )


def _per_clip(name: str, prompt: Prompt | Sequence[Prompt] | None, batch_size: int) -> list[dict[int, str]]:
    prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    if len(prompts) not in (1, batch_size):
        raise ValueError(f"`{name}` must have one entry, or {batch_size}, one per clip, got {len(prompts)}.")
    for one in prompts:
        if not isinstance(one, str | dict | None):
            raise ValueError(f"`{name}` must hold strings, or dictionaries for prompts over time, got {one!r}.")
    prompts = prompts * (batch_size // len(prompts))
    return [one if isinstance(one, dict) else {0: one or ""} for one in prompts]


def _padded(prompt: dict[int, str], num_keys: int) -> list[str]:
    texts = list(prompt.values())
    return texts + texts[-1:] * (num_keys - len(texts))
