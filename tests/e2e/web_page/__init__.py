"""The web page in real Chromium, in front of the demo models.

A package, so that its service and its browser end with its last test: while Playwright runs, nothing else in the
process can call asyncio.run.
"""
