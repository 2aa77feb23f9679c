"""M4C with the inputs of Hu et al. (2020): TextBERT for the question, and for every OCR word its FastText
vector, its PHOC, Faster R-CNN's features of its box, and the box. The rest of the model is `M4C`.

The published code concatenates 300 + 604 + 2048 values of a word and 50 zeros that remain from an older model
(3002) before one linear layer. The sum of three linear layers here is the same function without the zeros.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import AtlasError, loading
from attention_atlas.models.m4c import M4C, Batch
from attention_atlas.regions.phoc import SIZE as SPELLING


class PublishedM4C(M4C):
    """A batch of `M4C` in which `ids_BT` are BERT's word pieces with [CLS] and [SEP], `pieces_BT` (bool) is
    False in their padding, `ocr_vectors_BOF` are FastText vectors and `ocr_look_BOL` the detector's features
    of the words; there is no `spelling_BTP`.

    Args:
        text_encoder: hub id or folder of a BERT, whose first `text_layers` layers encode the question. The
            constructor reads only its configuration; `load_pretrained` loads the weights.
        vector_dim: F, size of the FastText vectors.

    The other arguments are those of `M4C`. Raises AtlasError for an encoder that cannot be loaded, is not a
    BERT or has too few layers.
    """

    def __init__(self, *, text_encoder: str, vector_dim: int, **more: Any) -> None:
        # Set first, because the constructor of M4C builds the inputs through the methods below.
        self.text_encoder, self.vector_dim = text_encoder, vector_dim
        super().__init__(**more)

    def _make_inputs(self, vocab_size: int, feature_dim: int, look_dim: int, dim: int) -> None:
        """`vocab_size` is unused: the question's pieces are BERT's."""
        self.spelling = nn.Linear(SPELLING, dim, bias=False)
        self.vectors = nn.Linear(self.vector_dim, dim, bias=False)
        self.object_look, self.object_place = nn.Linear(feature_dim, dim), nn.Linear(4, dim)
        self.ocr_look, self.ocr_place = nn.Linear(look_dim, dim), nn.Linear(4, dim)
        names = ("object_look", "object_place", "ocr_look", "ocr_place", "previous")
        self.norms = nn.ModuleDict({n: nn.LayerNorm(dim) for n in names})

    def _make_question_encoder(
        self, layers: int, dim: int, heads: int, inner: int, dropout: float, norm_first: bool
    ) -> None:
        from transformers import AutoConfig, BertModel

        config = _pretrained(AutoConfig, self.text_encoder)
        known = getattr(config, "num_hidden_layers", 0)
        if config.model_type != "bert" or known < layers:
            raise AtlasError(
                f"text_encoder: '{self.text_encoder}' is a {config.model_type} of {known} layers; give a "
                f"BERT of at least {layers}"
            )
        config.num_hidden_layers = layers
        self.text_bert = BertModel(config, add_pooling_layer=False)
        wide = config.hidden_size
        self.text_out = nn.Linear(wide, dim) if wide != dim else nn.Identity()

    def load_pretrained(self) -> None:
        """Load the weights of `text_encoder` into the question encoder."""
        from transformers import BertModel

        # Load the whole model, because loading fewer layers than the files contain is reported as an error.
        loaded = _pretrained(BertModel, self.text_encoder).state_dict()
        self.text_bert.load_state_dict({name: loaded[name] for name in self.text_bert.state_dict()})

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        norms, pieces_BT = self.norms, batch["pieces_BT"]
        text = self.text_bert(self.ids(batch), attention_mask=pieces_BT.long()).last_hidden_state
        text = self.text_out(text)
        objects = norms["object_look"](self.object_look(F.normalize(batch["features_BND"], dim=-1)))
        objects = self.drop(objects + norms["object_place"](self.object_place(batch["boxes_BN4"])))
        ocr = self.ocr_look(F.normalize(batch["ocr_look_BOL"], dim=-1))
        ocr = ocr + self.spelled(batch["ocr_spelling_BOP"])
        ocr = norms["ocr_look"](ocr + self.vectors(F.normalize(batch["ocr_vectors_BOF"], dim=-1)))
        ocr = self.drop(ocr + norms["ocr_place"](self.ocr_place(batch["ocr_boxes_BO4"])))
        return self.joined(batch, pieces_BT, text, objects, ocr)


def build_m4c(*, text_encoder: str = "", **arguments: Any) -> M4C:
    """A `PublishedM4C` if `text_encoder` is given, else an `M4C`."""
    return PublishedM4C(text_encoder=text_encoder, **arguments) if text_encoder else M4C(**arguments)


def _pretrained(kind: Any, where: str) -> Any:
    with loading(f"text_encoder: '{where}'"):
        return kind.from_pretrained(where)
