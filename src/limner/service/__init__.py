"""The service behind `limner serve`: captions over HTTP, in batches, with its own, OpenAI's and Ollama's interface."""
