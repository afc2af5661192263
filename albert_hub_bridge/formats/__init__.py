"""The file formats of tensors and vocabularies."""
