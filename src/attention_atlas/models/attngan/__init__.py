"""AttnGAN (Xu et al., CVPR 2018): generates an image in stages, with attention to the words of its text."""

from attention_atlas.models.attngan.damsm import Damsm
from attention_atlas.models.attngan.model import AttnGan

__all__ = ["AttnGan", "Damsm"]
