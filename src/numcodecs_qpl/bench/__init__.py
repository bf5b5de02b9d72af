"""The command ``numcodecs-qpl bench``: QPL and other codecs on the user's own data, in one run.

``run`` calls the other modules. ``data``, ``sample``, ``store`` and ``filters`` provide chunks, and ``contenders`` the
codecs. ``measure`` times them, ``verdict`` draws conclusions, and ``table``, ``plot`` and ``document`` show them.
Only ``table`` and ``progress`` need rich, only ``store`` and ``filters`` zarr, and only ``plot`` matplotlib.
"""
