"""Files that arrive in a folder, and the pictures of a camera, as they come."""
