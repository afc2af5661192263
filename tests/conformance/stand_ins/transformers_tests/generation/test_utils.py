"""Not in the source distribution. ALBERT fills in what is masked and generates nothing."""


class GenerationTesterMixin:
    """Tests nothing."""
