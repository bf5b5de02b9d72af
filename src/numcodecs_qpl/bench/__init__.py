"""The command ``numcodecs-qpl bench``: QPL beside other codecs, on the user's own data, in one run.

``data``, ``sample``, ``store`` and ``filters`` have the chunks, ``contenders`` who works on them, ``measure`` how long
each takes, ``verdict`` what follows from that, and ``table``, ``plot`` and ``document`` show it; ``run`` calls them in
turn. Only ``table`` and ``progress`` need rich, only ``store`` and ``filters`` zarr, and only ``plot`` matplotlib.
"""
