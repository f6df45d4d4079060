"""The demo page: a picture, one slider for what it may cost, and what comes of it.

    python -m pcsr_lightning.app

Modules: ``server`` serves it, ``page`` the layout and which event calls what, ``handlers`` what the
events do, ``visitor`` what is kept of a visitor, ``work`` the computing, ``texts`` what is said of
it, ``look`` theme and styles. Only ``page``, ``handlers``, ``look`` and ``server`` know of Gradio.
"""
