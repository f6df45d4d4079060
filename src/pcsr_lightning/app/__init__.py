"""The demo page: a picture, one slider for what it may cost, and the result.

    python -m pcsr_lightning.app

Modules: ``server`` serves it, ``page`` the layout and which event calls what, ``handlers`` what the
events do, ``visitors`` what is kept of each visitor, ``work`` the computing, ``texts`` its texts,
``look`` theme and styles. Only ``page``, ``handlers``, ``look`` and ``server`` know of Gradio.
"""
