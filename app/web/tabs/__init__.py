"""The tabs around the dream: Gradio's shell in our colours."""
