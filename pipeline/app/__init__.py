"""A server for coloring: the web page (page.py) and the HTTP API (api.py), with one model behind both.

    a request ─> guard: Host, Origin, bytes ─> api or page ─> worker: one job after the other ─> ColorPipeline
                                                   └─ visits: the pictures of one visitor, and nobody else's

`server.py` puts it together. It needs the extra `app`: pip install 'trichrome[app]'.
"""
