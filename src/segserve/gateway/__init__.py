"""The HTTP gateway: validates, fetches, asks a worker, renders, answers. No torch."""
