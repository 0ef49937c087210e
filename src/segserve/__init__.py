"""segserve: segmentation models behind a dependable HTTP API."""
