"""The page: a FastAPI server with a websocket for play, and Gradio as the shell around it."""

from importlib.util import find_spec

NEEDS = ("fastapi", "gradio", "pydantic", "uvicorn", "websockets")


def require() -> None:
    """Raises ImportError with what to install where something is missing."""
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise ImportError(f"the page needs more packages ({', '.join(missing)} missing): "
                          "pip install 'diamond-playground[web]'")
