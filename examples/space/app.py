"""The page as a Hugging Face Space (SDK gradio): put this folder into a Space, with the address of the repository."""

from selfhvd_tta.ui.server import serve

# A Space has one address for everybody; visitors see their own videos only.
serve("videos", host="0.0.0.0", port=7860, limit_mb=200)
