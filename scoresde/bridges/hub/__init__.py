"""Models on the Hugging Face Hub: folders with weights, settings and a model card, written and read."""

from scoresde.bridges.hub.card import model_card
from scoresde.bridges.hub.transfer import from_pretrained, push_to_hub, save_pretrained

__all__ = ["from_pretrained", "model_card", "push_to_hub", "save_pretrained"]
