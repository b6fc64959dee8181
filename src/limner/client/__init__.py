"""A captioner that is somewhere else: `Client` asks a `limner serve`, with the interface of a local captioner."""

from limner.client.client import Client as Client

__all__ = ["Client"]
