"""Base against candidate, pair by pair: from columns of twins to a verdict that can be recomputed.

Pure but for ``live``, which measures: nothing else here sends, reads a clock or prints. ``twins``
holds what was measured, ``blocks`` reduces it to a figure per pair and test, ``judge`` decides,
``document`` is gate.json.
"""
