"""The record of a conversion, and the model card."""
