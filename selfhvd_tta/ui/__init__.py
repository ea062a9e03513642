"""A local web page around the commands: drop a video, look at a preview, restore it, take it home."""
