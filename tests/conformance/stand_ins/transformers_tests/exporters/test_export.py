"""Not in the source distribution. Exporting is tested in `tests/model/test_execution.py`."""


class ExportTesterMixin:
    """Tests nothing."""
