"""Captioners behind a server with the interface of OpenAI (chat completions): Ollama, vLLM, llama.cpp, LM Studio."""
