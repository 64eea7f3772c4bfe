"""The page: a FastAPI server with a websocket for play, and Gradio as the shell around it."""
