"""Readers of real corpora, one file each, all returning attention_atlas.data.corpus.Corpus."""
