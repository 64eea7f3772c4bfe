"""The window: draws what the session shows and listens to keys, mouse and gamepads. The only room that knows pygame."""

import os

# pygame greets on import unless told not to
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
try:
    import pygame
except ImportError as missing:
    raise ImportError("the window needs pygame-ce: pip install 'pygame-ce>=2.4'") from missing
if not getattr(pygame, "IS_CE", False):
    raise ImportError("the window needs pygame-ce, and this is pygame, which takes its place: "
                      "pip uninstall -y pygame pygame-ce && pip install 'pygame-ce>=2.4'")
