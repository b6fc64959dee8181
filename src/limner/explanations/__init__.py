"""Explanations: on which cells of a picture or clip each word of a caption depends."""
