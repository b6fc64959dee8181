"""Layouts of caption files: each has a test that recognises it by its content, and a reader that yields entries."""
