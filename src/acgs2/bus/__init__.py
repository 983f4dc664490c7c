"""The bus: messages are judged, kept, delivered and proved.

It owns what a message is before it is stored, the queue that is fair to tenants, and the commits that
requests share. Who may ask, and by which words, is the API's.
"""
