"""Import diffusers and transformers without the packages that a command does not use.

Both import every optional package that they find, which takes most of the start-up: scipy for losses of object
detection and for noise schedules, torchvision for image processors, peft for LoRA, accelerate for offloading. What
they do not find at their import, they never use, so only the program, whose process ends with its command, asks for
this; never a library, a test or the web page.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


# Packages, and the words of a command line that need them; peft needs accelerate.
OPTIONAL = {
    "scipy": (),
    "torchvision": (),
    "peft": ("--lora", "draft"),
    "accelerate": ("--lora", "draft", "--offload"),
}
COMMANDS = ("generate", "animate")

_unused: list[str] = []


def plan_lean_imports(argv: Sequence[str]) -> None:
    """Find the packages that this process will not use.

    Args:
        argv: Command line without the program's name.
    """
    if argv and argv[0] in COMMANDS:
        words = " ".join(argv)
        _unused.extend(name for name, needed in OPTIONAL.items() if not any(word in words for word in needed))


@contextmanager
def lean_imports() -> Iterator[None]:
    """Hide the unused packages from imports in this context; afterwards, they can be imported as ever."""
    hidden = [name for name in _unused if name not in sys.modules]
    # Of a module that is None, `import` says that it does not exist, and so does `importlib.util.find_spec`.
    sys.modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name, name) is None:
                del sys.modules[name]
