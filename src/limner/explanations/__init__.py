"""Explanations: on which cells of an image or clip each word of a caption depends."""
