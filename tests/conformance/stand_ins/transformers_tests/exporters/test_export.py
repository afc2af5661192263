"""Not in the source distribution. Exporting is tested in `tests/test_runtime.py`."""


class ExportTesterMixin:
    """Tests nothing."""
