"""AttnGAN (Xu et al., CVPR 2018): a picture is drawn in stages, each of which looks at the words of its
text."""

from attention_atlas.models.attngan.damsm import Damsm
from attention_atlas.models.attngan.model import AttnGan

__all__ = ["AttnGan", "Damsm"]
